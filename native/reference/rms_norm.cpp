#include <cmath>
#include <vector>

#include "reference/access.h"
#include "reference/kernels.h"

namespace gavel::reference {

void rms_norm_forward(Context&, const RmsNorm& p) {
  const int64_t columns = p.x.cols();
  for (int64_t t = 0; t < p.x.rows(); ++t) {
    double squares = 0;
    for (int64_t i = 0; i < columns; ++i) squares += load(p.x, t * columns + i) * load(p.x, t * columns + i);
    const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(columns) + p.eps);
    for (int64_t i = 0; i < columns; ++i) {
      store(p.out, t * columns + i, load(p.x, t * columns + i) * inverse * load(p.weight, i));
    }
    store(p.inverse_rms, t, inverse);
  }
}

void rms_norm_backward(Context&, const RmsNorm& p) {
  const int64_t columns = p.x.cols();
  std::vector<double> grad_weight(static_cast<size_t>(columns), 0.0);
  for (int64_t t = 0; t < p.x.rows(); ++t) {
    const double inverse = load(p.inverse_rms, t);
    double mean = 0;  // of g n
    for (int64_t i = 0; i < columns; ++i) {
      const double g = load(p.grad_out, t * columns + i) * load(p.weight, i), n = load(p.x, t * columns + i) * inverse;
      mean += g * n / static_cast<double>(columns);
      grad_weight[static_cast<size_t>(i)] += load(p.grad_out, t * columns + i) * n;
    }
    for (int64_t i = 0; p.grad_x && i < columns; ++i) {
      const double g = load(p.grad_out, t * columns + i) * load(p.weight, i), n = load(p.x, t * columns + i) * inverse;
      put(p.grad_x, t * columns + i, inverse * (g - n * mean), p.accumulate_x);
    }
  }
  for (int64_t i = 0; p.grad_weight && i < columns; ++i)
    put(p.grad_weight, i, grad_weight[static_cast<size_t>(i)], true);
}

}  // namespace gavel::reference
