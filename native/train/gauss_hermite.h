// Gauss-Hermite quadrature: nodes x, ascending, and weights w of the integral of f(x) exp(-x^2) over the real line.
#pragma once
#include <cstdint>
#include <vector>

namespace gavel {

struct HermiteRule {
  std::vector<double> nodes, weights;
};
// 1 to 128 nodes, exact for polynomials of degree 2 count - 1.
HermiteRule gauss_hermite(int32_t count);

}  // namespace gavel
