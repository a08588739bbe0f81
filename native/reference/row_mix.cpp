#include <vector>

#include "reference/access.h"
#include "reference/kernels.h"

namespace gavel::reference {

void row_mix_forward(Context&, const RowMix& p) {
  const int64_t columns = p.out.cols();
  for (int64_t row = 0; row < p.out.rows(); ++row) {
    for (int64_t c = 0; c < columns; ++c) {
      double sum = p.base ? load(p.base, row * columns + c) : 0.0;
      for (int64_t place = row * p.taps; place < (row + 1) * p.taps; ++place) {
        const int64_t n = p.index[place];
        if (n < 0) continue;
        const double weight = p.weights == nullptr ? 1.0 : p.weights[place];
        sum += weight * (n < p.table.rows() ? load(p.table, n * columns + c) : load(p.extra, c));
      }
      store(p.out, row * columns + c, sum);
    }
  }
}

void row_mix_backward(Context&, const RowMix& p) {
  const int64_t columns = p.out.cols(), rows = p.table.rows();
  std::vector<double> sums(static_cast<size_t>((rows + 1) * columns), 0.0);
  for (int64_t row = 0; row < p.out.rows(); ++row) {
    for (int64_t c = 0; c < columns; ++c) {
      const double grad = load(p.grad_out, row * columns + c);
      if (p.grad_base) put(p.grad_base, row * columns + c, grad, true);
      for (int64_t place = row * p.taps; place < (row + 1) * p.taps; ++place) {
        const double weight = p.weights == nullptr ? 1.0 : p.weights[place];
        if (p.index[place] >= 0) sums[static_cast<size_t>(p.index[place] * columns + c)] += weight * grad;
      }
    }
  }
  for (int64_t i = 0; p.grad_table && i < rows * columns; ++i)
    put(p.grad_table, i, sums[static_cast<size_t>(i)], p.accumulate_table);
  for (int64_t c = 0; p.grad_extra && c < columns; ++c)
    put(p.grad_extra, c, sums[static_cast<size_t>(rows * columns + c)], true);
}

}  // namespace gavel::reference
