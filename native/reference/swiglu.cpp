#include <cmath>

#include "reference/access.h"
#include "reference/kernels.h"

namespace gavel::reference {

void swiglu_forward(Context&, const Swiglu& p) {
  const int64_t columns = p.out.cols();
  for (int64_t t = 0; t < p.out.rows(); ++t) {
    for (int64_t i = 0; i < columns; ++i) {
      const double gate = load(p.x, t * 2 * columns + i), up = load(p.x, (t * 2 + 1) * columns + i);
      store(p.out, t * columns + i, gate / (1 + std::exp(-gate)) * up);
    }
  }
}

void swiglu_backward(Context&, const Swiglu& p) {
  const int64_t columns = p.out.cols();
  for (int64_t t = 0; t < p.out.rows(); ++t) {
    for (int64_t i = 0; i < columns; ++i) {
      const double gate = load(p.x, t * 2 * columns + i), up = load(p.x, (t * 2 + 1) * columns + i);
      const double grad = load(p.grad_out, t * columns + i), sigmoid = 1 / (1 + std::exp(-gate));
      store(p.grad_x, t * 2 * columns + i, grad * up * sigmoid * (1 + gate * (1 - sigmoid)));
      store(p.grad_x, (t * 2 + 1) * columns + i, grad * gate * sigmoid);
    }
  }
}

}  // namespace gavel::reference
