// Rotates the first `heads` heads of each row in place (Su et al. 2021; the half-split form): (a, b) -> (a cos - b sin,
// b cos + a sin) for a = x[j], b = x[j + D/2]. Computed in fp32, rounded once. Backward is the inverse rotation, in
// place.
#pragma once
#include "core/tensor.h"

namespace gavel {

struct Rope {
  Tensor x;       // [T, columns], rotated in place
  Tensor cosine;  // [T, D/2] fp32
  Tensor sine;    // [T, D/2] fp32
  int32_t heads = 0;
  int32_t head_dim = 0;
  // backward
  Tensor grad_x;  // rotated back in place

  template <class Binder>
  static void bind(Rope& p, Binder& b) {
    p.grad_x = b.output(p.x);
  }
};

}  // namespace gavel
