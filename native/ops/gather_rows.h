// out[s] = x[rows[s]], exactly, in fp32 or the dtype of x: what reads single rows of a pack (the reward head, the last
// layer) leaves its neighbours out of every sum. A row may be asked for more than once; its gradients are added in
// ascending s, rounded to x's dtype each time.
#pragma once
#include "core/tensor.h"

namespace gavel {

struct GatherRows {
  Tensor out;                     // [S, H] fp32, or of x's dtype
  Tensor x;                       // [T, H]
  const int32_t* rows = nullptr;  // [S]
  // backward
  Tensor grad_out;  // [S, H] as out
  Tensor grad_x;    // [T, H]; rows that nobody asked for become zero unless it accumulates
  bool accumulate_x = false;

  template <class Binder>
  static void bind(GatherRows& p, Binder& b) {
    p.grad_out = b.output(p.out);
    p.grad_x = b.input(p.x, p.accumulate_x);
  }
};

}  // namespace gavel
