// out = x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019). The sum of squares has one fixed tree per row.
#pragma once
#include "core/tensor.h"

namespace gavel {

struct RmsNorm {
  Tensor out;          // [T, H]
  Tensor inverse_rms;  // [T] fp32, saved
  Tensor x;            // [T, H]
  Tensor weight;       // [H]
  float eps = 1e-6f;
  // backward
  Tensor grad_out;
  Tensor grad_x;  // or absent
  bool accumulate_x = false;
  Tensor grad_weight;  // fp32, accumulated in ascending rows by fixed chunks; or absent

  template <class Binder>
  static void bind(RmsNorm& p, Binder& b) {
    p.grad_out = b.output(p.out);
    p.grad_x = b.input(p.x, p.accumulate_x);
    p.grad_weight = b.parameter(p.weight);
  }
};

}  // namespace gavel
