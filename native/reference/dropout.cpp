#include "core/philox.h"
#include "reference/access.h"
#include "reference/kernels.h"

namespace gavel::reference {
namespace {

double factor(const Dropout& p, int64_t row, int64_t column) {
  const double scale = p.column_scale != nullptr ? p.column_scale[column] : p.scale;
  if (p.probability == 0.0f) return scale;
  const RandomKey key{p.seed, p.site, p.first_row + static_cast<uint32_t>(row), static_cast<uint32_t>(column / 4)};
  const float uniform = static_cast<float>(random_bits(key)[static_cast<size_t>(column % 4)] >> 8) * 0x1p-24f;
  return uniform < p.probability ? 0.0 : scale / (1.0 - double{p.probability});
}

}  // namespace

void dropout_forward(Context&, const Dropout& p) {
  const int64_t columns = p.x.cols();
  for (int64_t i = 0; i < p.x.shape.count(); ++i) {
    store(p.out, i, load(p.x, i) * factor(p, i / columns, i % columns));
  }
}

void dropout_backward(Context&, const Dropout& p) {
  const int64_t columns = p.x.cols();
  for (int64_t i = 0; i < p.x.shape.count(); ++i) {
    put(p.grad_x, i, load(p.grad_out, i) * factor(p, i / columns, i % columns), p.accumulate_x);
  }
}

}  // namespace gavel::reference
