// out[t] = features[feature_rows[t]] where feature_rows[t] >= 0, else table[tokens[t]].
// The table may be in panel layout (tied with the head) or in rows. Backward adds into grad_table (fp32, the table's
// own order) in ascending t, and writes grad_features rows once (a feature row stands at one token only).
#pragma once
#include "core/tensor.h"

namespace gavel {

struct Embedding {
  Tensor out;                             // [T, H]
  Tensor table;                           // [V, H], rows or panels
  Tensor features;                        // [N, H] or absent
  const int32_t* tokens = nullptr;        // [T]
  const int32_t* feature_rows = nullptr;  // [T] or null
  // backward
  Tensor grad_out;       // [T, H]
  Tensor grad_table;     // fp32, order of table, accumulated; or absent
  Tensor grad_features;  // [N, H], overwritten; or absent

  template <class Binder>
  static void bind(Embedding& p, Binder& b) {
    p.grad_out = b.output(p.out);
    p.grad_table = b.parameter(p.table);
    p.grad_features = b.input_overwritten(p.features);
  }
};

}  // namespace gavel
