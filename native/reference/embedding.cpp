#include "reference/access.h"
#include "reference/kernels.h"

namespace gavel::reference {

void embedding_forward(Context&, const Embedding& p) {
  const int64_t columns = p.out.cols();
  for (int64_t t = 0; t < p.out.rows(); ++t) {
    const bool feature = p.feature_rows != nullptr && p.feature_rows[t] >= 0;
    for (int64_t k = 0; k < columns; ++k) {
      const double value = feature ? load(p.features, p.feature_rows[t] * columns + k)
                                   : load(p.table, place(p.table, token_of(p.tokens, p.sources, t), k, p.table.dtype));
      store(p.out, t * columns + k, value);
    }
  }
}

void embedding_backward(Context&, const Embedding& p) {
  const int64_t columns = p.out.cols();
  if (p.grad_features) {
    for (int64_t i = 0; i < p.grad_features.shape.count(); ++i) store(p.grad_features, i, 0);
  }
  for (int64_t t = 0; t < p.out.rows(); ++t) {
    const bool feature = p.feature_rows != nullptr && p.feature_rows[t] >= 0;
    for (int64_t k = 0; k < columns; ++k) {
      const double grad = load(p.grad_out, t * columns + k);
      if (feature && p.grad_features) store(p.grad_features, p.feature_rows[t] * columns + k, grad);
      if (!feature && p.grad_token_rows && p.row_of_token[token_of(p.tokens, p.sources, t)] >= 0)
        put(p.grad_token_rows, p.row_of_token[token_of(p.tokens, p.sources, t)] * columns + k, grad, true);
      if (!feature && p.grad_table)
        put(p.grad_table, place(p.table, token_of(p.tokens, p.sources, t), k, p.table.dtype), grad, true);
    }
  }
}

}  // namespace gavel::reference
