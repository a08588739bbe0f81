// RMSNorm of every query and key head of [queries, keys, values] rows, each over its own head_dim columns (QK-norm,
// Henry et al. 2020); values are copied. The sum of squares has one fixed tree per head.
#pragma once
#include "core/tensor.h"

namespace gavel {

struct HeadNorm {
  Tensor out;           // [T, columns]
  Tensor inverse_rms;   // [T, query_heads + key_heads] fp32, saved
  Tensor x;             // [T, columns], columns >= (query_heads + key_heads) * head_dim
  Tensor query_weight;  // [head_dim]
  Tensor key_weight;    // [head_dim]
  int32_t query_heads = 0, key_heads = 0, head_dim = 0;
  float eps = 1e-6f;
  // backward
  Tensor grad_out;
  Tensor grad_x;             // overwritten; or absent
  Tensor grad_query_weight;  // fp32, accumulated in ascending rows by fixed chunks; or absent
  Tensor grad_key_weight;

  template <class Binder>
  static void bind(HeadNorm& p, Binder& b) {
    p.grad_out = b.output(p.out);
    p.grad_x = b.input_overwritten(p.x);
    p.grad_query_weight = b.parameter(p.query_weight);
    p.grad_key_weight = b.parameter(p.key_weight);
  }
};

}  // namespace gavel
