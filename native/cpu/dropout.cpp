// Scaling and inverted dropout. Four columns share one Philox draw.
#include "core/philox.h"
#include "cpu/dispatch.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
namespace {

// put(column, factor) for every column of a row.
template <class Put>
GAVEL_INLINE void for_factors(const Dropout& p, int64_t row, const Put& put) {
  const int64_t columns = p.x.cols();
  if (p.probability == 0.0f) {
    if (p.column_scale == nullptr) {
      for (int64_t k = 0; k < columns; ++k) put(k, p.scale);
    } else {
      for (int64_t k = 0; k < columns; ++k) put(k, p.column_scale[k]);
    }
    return;
  }
  for (int64_t k = 0; k < columns; k += 4) {
    const auto bits =
        random_bits({p.seed, p.site, p.first_row + static_cast<uint32_t>(row), static_cast<uint32_t>(k / 4)});
    for (int64_t i = 0; i < std::min<int64_t>(4, columns - k); ++i) {
      const float uniform = static_cast<float>(bits[static_cast<size_t>(i)] >> 8) * 0x1p-24f;
      const float scale = p.column_scale == nullptr ? p.scale : p.column_scale[k + i];
      put(k + i, choose(uniform < p.probability, 0.0f, scale / (1.0f - p.probability)));
    }
  }
}

}  // namespace

void dropout_forward(Context& context, const Dropout& p) {
  with_element(p.x.dtype, [&](auto* type) {
    using X = std::remove_pointer_t<decltype(type)>;
    const int64_t columns = p.x.cols();
    for_rows(
        context, p.x.rows(), columns, [&](int64_t row) __attribute__((always_inline)) {
          const X* x = static_cast<const X*>(p.x.data) + row * columns;
          X* __restrict out = static_cast<X*>(p.out.data) + row * columns;
          for_factors(p, row, [&](int64_t k, float factor) { store_value(out + k, load_value(x + k) * factor); });
        });
  });
}

void dropout_backward(Context& context, const Dropout& p) {
  with_element(p.x.dtype, [&](auto* type) {
    using X = std::remove_pointer_t<decltype(type)>;
    const int64_t columns = p.x.cols();
    for_rows(
        context, p.x.rows(), columns, [&](int64_t row) __attribute__((always_inline)) {
          const X* grad_out = static_cast<const X*>(p.grad_out.data) + row * columns;
          X* __restrict grad_x = static_cast<X*>(p.grad_x.data) + row * columns;
          for_factors(p, row, [&](int64_t k, float factor) {
            const float own = load_value(grad_out + k) * factor;
            store_value(grad_x + k, p.accumulate_x ? load_value(grad_x + k) + own : own);
          });
        });
  });
}

}  // namespace gavel::cpu
