// out[t] = features[feature_rows[t]] where feature_rows[t] >= 0, else table[token of t], which is tokens[t], or with
// sources tokens[sources[t]].
// The table may be in panel layout (tied with the head) or in rows. Backward adds into grad_table (fp32, the table's
// own order) in ascending t, and writes grad_features rows once (a feature row stands at one token only). Single rows
// of a frozen table may train: they have a matrix of their own, whose values the table holds too.
#pragma once
#include "core/tensor.h"

namespace gavel {

// Of row t.
constexpr int32_t token_of(const int32_t* tokens, const int32_t* sources, int64_t t) {
  if (sources == nullptr) return tokens[t];
  const int32_t token = tokens[sources[t]];
  return token < 0 ? 0 : token;
}

struct Embedding {
  Tensor out;                             // [T, H]
  Tensor table;                           // [V, H], rows or panels
  Tensor features;                        // [N, H] or absent
  const int32_t* tokens = nullptr;        // [T], or as many as `sources` reach
  const int32_t* sources = nullptr;       // [T] or null; a token below 0 that it names (none was drawn) is token 0
  const int32_t* feature_rows = nullptr;  // [T] or null
  Tensor token_rows;                      // [n, H] trainable rows of the table, or absent; only their gradient is made
  const int32_t* row_of_token = nullptr;  // [V] row of token_rows, or -1
  // backward
  Tensor grad_out;         // [T, H]
  Tensor grad_table;       // fp32, order of table, accumulated; or absent
  Tensor grad_features;    // [N, H], overwritten; or absent
  Tensor grad_token_rows;  // [n, H] fp32, accumulated; or absent

  template <class Binder>
  static void bind(Embedding& p, Binder& b) {
    p.grad_out = b.output(p.out);
    p.grad_table = b.parameter(p.table);
    p.grad_features = b.input_overwritten(p.features);
    p.grad_token_rows = b.parameter(p.token_rows);
  }
};

}  // namespace gavel
