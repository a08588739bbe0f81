// out = x Phi(x), exact by erf, or the tanh approximation (Hendrycks and Gimpel 2016).
#pragma once
#include "core/tensor.h"

namespace gavel {

struct Gelu {
  Tensor out;  // [T, F]
  Tensor x;    // [T, F]
  bool tanh_approximation = false;
  // backward
  Tensor grad_out;
  Tensor grad_x;  // overwritten

  template <class Binder>
  static void bind(Gelu& p, Binder& b) {
    p.grad_out = b.output(p.out);
    p.grad_x = b.input_overwritten(p.x);
  }
};

}  // namespace gavel
