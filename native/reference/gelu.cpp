#include <cmath>
#include <numbers>

#include "reference/access.h"
#include "reference/kernels.h"

namespace gavel::reference {
namespace {
const double kRoot = std::sqrt(2 / std::numbers::pi);
}

void gelu_forward(Context&, const Gelu& p) {
  for (int64_t i = 0; i < p.x.shape.count(); ++i) {
    const double x = load(p.x, i);
    const double phi = p.tanh_approximation ? 0.5 * (1 + std::tanh(kRoot * (x + 0.044715 * x * x * x)))
                                            : 0.5 * std::erfc(-x / std::numbers::sqrt2);
    store(p.out, i, x * phi);
  }
}

void gelu_backward(Context&, const Gelu& p) {
  for (int64_t i = 0; i < p.x.shape.count(); ++i) {
    const double x = load(p.x, i);
    double slope;
    if (p.tanh_approximation) {
      const double tanh = std::tanh(kRoot * (x + 0.044715 * x * x * x));
      slope = 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * kRoot * (1 + 3 * 0.044715 * x * x);
    } else {
      slope = 0.5 * std::erfc(-x / std::numbers::sqrt2) + x * std::exp(-0.5 * x * x) / std::sqrt(2 * std::numbers::pi);
    }
    store(p.grad_x, i, load(p.grad_out, i) * slope);
  }
}

}  // namespace gavel::reference
