#include <cmath>

#include "reference/access.h"
#include "reference/kernels.h"

namespace gavel::reference {

void adamw_forward(Context&, const AdamW& p) {
  const double correction1 = 1 - std::pow(p.beta1, static_cast<double>(p.step));
  const double correction2 = 1 - std::pow(p.beta2, static_cast<double>(p.step));
  const Tensor& parameter = p.master ? p.master : p.value;
  for (int64_t i = 0; i < p.count; ++i) {
    const double g = static_cast<double>(p.grad[i]) * p.grad_scale;
    const double m = p.beta1 * p.moment1[i] + (1 - p.beta1) * g;
    const double v = p.beta2 * p.moment2[i] + (1 - p.beta2) * g * g;
    p.moment1[i] = static_cast<float>(m);
    p.moment2[i] = static_cast<float>(v);
    const double decayed = load(parameter, i) * (1 - p.learning_rate * p.weight_decay);
    store(parameter, i, decayed - p.learning_rate * (m / correction1) / (std::sqrt(v / correction2) + p.eps));
    if (p.master) store(p.value, i, load(parameter, i));
  }
}

}  // namespace gavel::reference
