// out = max(x, 0), as torch.relu has it: NaN stays, and the gradient at 0 is 0.
#pragma once
#include "core/tensor.h"

namespace gavel {

struct Relu {
  Tensor out;  // [T, F]
  Tensor x;    // [T, F]
  // backward
  Tensor grad_out;
  Tensor grad_x;  // overwritten

  template <class Binder>
  static void bind(Relu& p, Binder& b) {
    p.grad_out = b.output(p.out);
    p.grad_x = b.input_overwritten(p.x);
  }
};

}  // namespace gavel
