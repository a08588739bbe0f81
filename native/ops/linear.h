// out[M, N] = x[M, K] weight[N, K]^T + bias[N] + residual[M, N].
// One chain per output element: acc = +0, then k ascending (fp32: one fma each; bf16: the odd element of each pair
// first, flush-to-zero, as vdpbf16ps does; with Context::amx, blocks of 32 as tdpbf16ps adds them), then + bias, then +
// residual, then one rounding to the output dtype. The bits of a row do not depend on M, its neighbours, tiles or
// threads.
#pragma once
#include "core/tensor.h"

namespace gavel {

struct Linear {
  Tensor out;       // [M, N], dtype of x
  Tensor x;         // [M, K], dtype of weight
  Tensor weight;    // [N, K], panels
  Tensor bias;      // [N] or absent
  Tensor residual;  // [M, N] or absent; may be the same memory as out
  // backward
  Tensor grad_out;  // [M, N]
  Tensor grad_x;    // [M, K] or absent
  bool accumulate_x = false;
  Tensor grad_weight;    // fp32, order of weight, accumulated; or absent
  Tensor grad_bias;      // [N] fp32, accumulated; or absent
  Tensor grad_residual;  // [M, N], accumulated; absent when the tape passes grad_out on by itself

  template <class Binder>
  static void bind(Linear& p, Binder& b) {
    p.grad_out = b.output(p.out);
    p.grad_x = b.input(p.x, p.accumulate_x);
    p.grad_weight = b.parameter(p.weight);
    p.grad_bias = b.parameter(p.bias);
    p.grad_residual = b.pass_on(p.residual, p.out);
  }
};

}  // namespace gavel
