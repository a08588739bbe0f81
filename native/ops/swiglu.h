// out = silu(gate) * up with gate = x[:, :F], up = x[:, F:] (Shazeer 2020). fp32 inside, one rounding.
#pragma once
#include "core/tensor.h"

namespace gavel {

struct Swiglu {
  Tensor out;  // [T, F]
  Tensor x;    // [T, 2 F]
  // backward
  Tensor grad_out;
  Tensor grad_x;  // [T, 2 F], overwritten

  template <class Binder>
  static void bind(Swiglu& p, Binder& b) {
    p.grad_out = b.output(p.out);
    p.grad_x = b.input_overwritten(p.x);
  }
};

}  // namespace gavel
