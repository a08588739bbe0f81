#include <cmath>

#include "reference/kernels.h"

namespace gavel::reference {

void global_norm_forward(Context&, const GlobalNorm& p) {
  double sum = 0;
  *p.finite = true;
  for (int32_t tensor = 0; tensor < p.num_grads; ++tensor) {
    for (int64_t i = 0; i < p.counts[tensor]; ++i) {
      const double value = p.grads[tensor][i];
      if (!std::isfinite(value)) *p.finite = false;
      sum += value * value;
    }
  }
  *p.norm = std::sqrt(sum);
}

}  // namespace gavel::reference
