#include "reference/access.h"
#include "reference/kernels.h"

namespace gavel::reference {
namespace {

void rotate(const Rope& p, const Tensor& x, double direction) {
  const int64_t half = p.head_dim / 2;
  for (int64_t row = 0; row < x.rows(); ++row) {
    for (int64_t head = 0; head < p.heads; ++head) {
      for (int64_t j = 0; j < half; ++j) {
        const int64_t first = row * x.cols() + head * p.head_dim + j, second = first + half;
        const double a = load(x, first), b = load(x, second);
        const double c = p.cosine.f32()[row * half + j], s = direction * p.sine.f32()[row * half + j];
        store(x, first, a * c - b * s);
        store(x, second, b * c + a * s);
      }
    }
  }
}

}  // namespace

void rope_forward(Context&, const Rope& p) { rotate(p, p.x, 1.0); }
void rope_backward(Context&, const Rope& p) { rotate(p, p.grad_x, -1.0); }

}  // namespace gavel::reference
