// out[r] = base[r] + sum over k < taps of weights[r, k] * table[index[r, k]], k ascending in fp32, one rounding. Serves
// learned position embeddings (interpolated or not), tiles put in order and pooled, rows added to some rows only.
// index -1 adds nothing; index table.rows() names `extra`, one more row with a gradient of its own.
#pragma once
#include "core/tensor.h"

namespace gavel {

struct RowMix {
  Tensor out;                      // [R, H]
  Tensor base;                     // [R, H] or absent (zero)
  Tensor table;                    // [N, H], rows: an activation or a parameter
  Tensor extra;                    // [H] or absent
  const int32_t* index = nullptr;  // [R, taps], each < N, or N when `extra` is there
  const float* weights = nullptr;  // [R, taps], or null: all 1
  int32_t taps = 1;
  // backward
  Tensor grad_out;
  Tensor grad_base;   // [R, H], accumulated; absent when the tape passes grad_out on by itself
  Tensor grad_table;  // fp32 and accumulated for a parameter, else the activations' dtype; or absent
  bool accumulate_table = false;
  Tensor grad_extra;  // fp32, accumulated; or absent

  template <class Binder>
  static void bind(RowMix& p, Binder& b) {
    p.grad_out = b.output(p.out);
    p.grad_table = b.input(p.table, p.accumulate_table);
    if (p.table.id < -1) {
      p.grad_table = b.parameter(p.table);
      p.accumulate_table = true;
    }
    p.grad_extra = b.parameter(p.extra);
    p.grad_base = b.pass_on(p.base, p.out);
  }
};

}  // namespace gavel
