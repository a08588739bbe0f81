#include "train/gauss_hermite.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace gavel {

// Newton's method on orthonormal Hermite functions; starting points and spacing after Szego's asymptotics, as in
// Press et al., Numerical Recipes 4.6. The symmetric half is mirrored.
HermiteRule gauss_hermite(int32_t count) {
  const int32_t half = (count + 1) / 2;
  const double n = count, first = std::pow(std::numbers::pi, -0.25);
  std::vector<double> x(static_cast<size_t>(count)), w(static_cast<size_t>(count));
  double z = 0;
  for (int32_t i = 0; i < half; ++i) {
    const auto before = [&](int32_t back) { return x[static_cast<size_t>(count - 1 - (i - back))]; };
    if (i == 0) z = std::sqrt(2 * n + 1) - 1.85575 * std::pow(2 * n + 1, -0.16667);
    if (i == 1) z -= 1.14 * std::pow(n, 0.426) / z;
    if (i == 2) z = 1.86 * z - 0.86 * before(2);
    if (i == 3) z = 1.91 * z - 0.91 * before(2);
    if (i > 3) z = 2 * z - before(2);
    double slope = 1;
    for (int32_t round = 0; round < 50; ++round) {
      double p = first, previous = 0;
      for (int32_t j = 0; j < count; ++j) {
        const double next = z * std::sqrt(2.0 / (j + 1)) * p - std::sqrt(static_cast<double>(j) / (j + 1)) * previous;
        previous = p;
        p = next;
      }
      slope = std::sqrt(2 * n) * previous;
      const double step = p / slope;
      z -= step;
      if (std::fabs(step) <= 1e-15 * std::max(1.0, std::fabs(z))) break;
    }
    x[static_cast<size_t>(count - 1 - i)] = z;
    x[static_cast<size_t>(i)] = -z;
    w[static_cast<size_t>(i)] = w[static_cast<size_t>(count - 1 - i)] = 2 / (slope * slope);
  }
  if (count % 2 == 1) x[static_cast<size_t>(half - 1)] = 0;
  return {std::move(x), std::move(w)};
}

}  // namespace gavel
