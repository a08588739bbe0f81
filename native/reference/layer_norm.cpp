#include <cmath>
#include <vector>

#include "reference/access.h"
#include "reference/kernels.h"

namespace gavel::reference {

void layer_norm_forward(Context&, const LayerNorm& p) {
  const int64_t columns = p.x.cols();
  const double count = static_cast<double>(columns);
  for (int64_t t = 0; t < p.x.rows(); ++t) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < columns; ++i) mean += load(p.x, t * columns + i) / count;
    for (int64_t i = 0; i < columns; ++i) variance += std::pow(load(p.x, t * columns + i) - mean, 2) / count;
    const double inverse = 1.0 / std::sqrt(variance + p.eps);
    for (int64_t i = 0; i < columns; ++i) {
      store(p.out, t * columns + i,
            (load(p.x, t * columns + i) - mean) * inverse * load(p.weight, i) + load(p.bias, i));
    }
    store(p.statistics, 2 * t, mean);
    store(p.statistics, 2 * t + 1, inverse);
  }
}

void layer_norm_backward(Context&, const LayerNorm& p) {
  const int64_t columns = p.x.cols();
  const double count = static_cast<double>(columns);
  std::vector<double> grad_weight(static_cast<size_t>(columns), 0.0), grad_bias(static_cast<size_t>(columns), 0.0);
  for (int64_t t = 0; t < p.x.rows(); ++t) {
    const double mean = load(p.statistics, 2 * t), inverse = load(p.statistics, 2 * t + 1);
    double mean_g = 0, mean_gn = 0;
    for (int64_t i = 0; i < columns; ++i) {
      const double grad = load(p.grad_out, t * columns + i), g = grad * load(p.weight, i);
      const double n = (load(p.x, t * columns + i) - mean) * inverse;
      mean_g += g / count;
      mean_gn += g * n / count;
      grad_weight[static_cast<size_t>(i)] += grad * n;
      grad_bias[static_cast<size_t>(i)] += grad;
    }
    for (int64_t i = 0; p.grad_x && i < columns; ++i) {
      const double g = load(p.grad_out, t * columns + i) * load(p.weight, i);
      const double n = (load(p.x, t * columns + i) - mean) * inverse;
      put(p.grad_x, t * columns + i, inverse * (g - mean_g - n * mean_gn), p.accumulate_x);
    }
  }
  for (int64_t i = 0; i < columns; ++i) {
    if (p.grad_weight) put(p.grad_weight, i, grad_weight[static_cast<size_t>(i)], true);
    if (p.grad_bias) put(p.grad_bias, i, grad_bias[static_cast<size_t>(i)], true);
  }
}

}  // namespace gavel::reference
