// out = x * scale * keep / (1 - probability), keep in {0, 1} from a counter (Srivastava et al. 2014, inverted form).
// probability 0 is plain scaling; `column_scale`, when given, takes the place of scale column by column. keep[t, k] is
// a function of (seed, site, first_row + t, k) alone: recomputation and the split into micro-batches change nothing.
#pragma once
#include "core/tensor.h"

namespace gavel {

struct Dropout {
  Tensor out;  // [T, K]
  Tensor x;    // [T, K]
  float scale = 1.0f;
  const float* column_scale = nullptr;  // [K] or null
  float probability = 0.0f;             // of a zero, in [0, 1)
  uint64_t seed = 0, site = 0;
  uint32_t first_row = 0;
  // backward
  Tensor grad_out;
  Tensor grad_x;
  bool accumulate_x = false;

  template <class Binder>
  static void bind(Dropout& p, Binder& b) {
    p.grad_out = b.output(p.out);
    p.grad_x = b.input(p.x, p.accumulate_x);
  }
};

}  // namespace gavel
