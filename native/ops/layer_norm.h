// out = (x - mean) / sqrt(var + eps) * weight + bias (Ba et al. 2016), biased variance.
#pragma once
#include "core/tensor.h"

namespace gavel {

struct LayerNorm {
  Tensor out;         // [T, H]
  Tensor statistics;  // [T, 2] fp32: mean and 1/sqrt(var + eps), saved
  Tensor x;           // [T, H]
  Tensor weight;      // [H]
  Tensor bias;        // [H]
  float eps = 1e-6f;
  // backward
  Tensor grad_out;
  Tensor grad_x;  // or absent
  bool accumulate_x = false;
  Tensor grad_weight;  // fp32, accumulated; or absent
  Tensor grad_bias;    // fp32, accumulated; or absent

  template <class Binder>
  static void bind(LayerNorm& p, Binder& b) {
    p.grad_out = b.output(p.out);
    p.grad_x = b.input(p.x, p.accumulate_x);
    p.grad_weight = b.parameter(p.weight);
    p.grad_bias = b.parameter(p.bias);
  }
};

}  // namespace gavel
