// Every head of a row made wider with zeros, or narrower by dropping its last columns: attention wants head sizes that
// are multiples of 16 (SigLIP's is 72), and zero columns change neither scores nor contexts. The backward is the op
// with the sizes exchanged.
#pragma once
#include "core/tensor.h"

namespace gavel {

struct ResizeHeads {
  Tensor out;  // [T, heads * to]
  Tensor x;    // [T, heads * from]
  int32_t heads = 0, from = 0, to = 0;
  // backward
  Tensor grad_out;
  Tensor grad_x;  // overwritten

  template <class Binder>
  static void bind(ResizeHeads& p, Binder& b) {
    p.grad_out = b.output(p.out);
    p.grad_x = b.input_overwritten(p.x);
  }
};

}  // namespace gavel
