#include "reference/access.h"
#include "reference/kernels.h"

namespace gavel::reference {

void gather_rows_forward(Context&, const GatherRows& p) {
  const int64_t columns = p.x.cols();
  for (int64_t row = 0; row < p.out.rows(); ++row) {
    for (int64_t i = 0; i < columns; ++i) store(p.out, row * columns + i, load(p.x, p.rows[row] * columns + i));
  }
}

void gather_rows_backward(Context&, const GatherRows& p) {
  const int64_t columns = p.x.cols();
  if (!p.accumulate_x) {
    for (int64_t i = 0; i < p.x.shape.count(); ++i) store(p.grad_x, i, 0);
  }
  for (int64_t row = 0; row < p.out.rows(); ++row) {
    for (int64_t i = 0; i < columns; ++i) {
      const int64_t at = p.rows[row] * columns + i;
      store(p.grad_x, at, load(p.grad_x, at) + load(p.grad_out, row * columns + i));
    }
  }
}

}  // namespace gavel::reference
