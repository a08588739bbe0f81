// RMSNorm by rows. Backward, with n = x * inverse and g = grad_out * weight: grad_x = inverse * (g - n * mean(g * n)).
#include "cpu/column_sums.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
namespace {

template <class X, class W>
GAVEL_INLINE void forward_row(X* __restrict out, float* inverse_rms, const X* __restrict x, const W* __restrict weight,
                              int64_t columns, float eps) {
  const float squares = lane_sum(
      columns, [&](int64_t i) __attribute__((always_inline)) {
        const float value = load_value(x + i);
        return value * value;
      });
  const float inverse = 1.0f / __builtin_sqrtf(squares / static_cast<float>(columns) + eps);
  for (int64_t i = 0; i < columns; ++i) store_value(out + i, load_value(x + i) * inverse * load_value(weight + i));
  *inverse_rms = inverse;
}

template <class X, class W>
GAVEL_INLINE void backward_row(X* grad_x, bool accumulate, const X* grad_out, const X* x, const W* weight,
                               float inverse, int64_t columns) {
  const float dot = lane_sum(
      columns, [&](int64_t i) __attribute__((always_inline)) {
        return load_value(grad_out + i) * load_value(weight + i) * load_value(x + i);
      });
  const float shift = dot / static_cast<float>(columns) * inverse * inverse * inverse;
  if (accumulate) {
    for (int64_t i = 0; i < columns; ++i) {
      const float value = load_value(grad_out + i) * load_value(weight + i) * inverse - load_value(x + i) * shift;
      store_value(grad_x + i, load_value(grad_x + i) + value);
    }
  } else {
    for (int64_t i = 0; i < columns; ++i) {
      store_value(grad_x + i, load_value(grad_out + i) * load_value(weight + i) * inverse - load_value(x + i) * shift);
    }
  }
}

}  // namespace

void rms_norm_forward(Context& context, const RmsNorm& p) {
  const int64_t columns = p.x.cols();
  with_element(p.x.dtype, [&](auto* x_type) {
    with_element(p.weight.dtype, [&](auto* weight_type) {
      using X = std::remove_pointer_t<decltype(x_type)>;
      using W = std::remove_pointer_t<decltype(weight_type)>;
      for_rows(
          context, p.x.rows(), columns, [&](int64_t row) __attribute__((always_inline)) {
            forward_row(static_cast<X*>(p.out.data) + row * columns, p.inverse_rms.f32() + row,
                        static_cast<const X*>(p.x.data) + row * columns, static_cast<const W*>(p.weight.data), columns,
                        p.eps);
          });
    });
  });
}

void rms_norm_backward(Context& context, const RmsNorm& p) {
  const int64_t rows = p.x.rows(), columns = p.x.cols(), chunks = num_pieces(rows, kSumRows);
  float* partials = nullptr;
  if (p.grad_weight) {
    partials =
        reinterpret_cast<float*>(context.scratch->shared(0, static_cast<size_t>(chunks * columns) * sizeof(float)));
  }
  with_element(p.x.dtype, [&](auto* x_type) {
    with_element(p.weight.dtype, [&](auto* weight_type) {
      using X = std::remove_pointer_t<decltype(x_type)>;
      using W = std::remove_pointer_t<decltype(weight_type)>;
      context.pool->parallel_for(chunks, [&](int64_t chunk, int) {
        run_for_isa(
            context.isa, GAVEL_BODY {
              float* __restrict sums = partials == nullptr ? nullptr : partials + chunk * columns;
              for (int64_t i = 0; sums != nullptr && i < columns; ++i) sums[i] = 0.0f;
              for (int64_t row = chunk * kSumRows; row < std::min(rows, (chunk + 1) * kSumRows); ++row) {
                const X* grad_out = static_cast<const X*>(p.grad_out.data) + row * columns;
                const X* x = static_cast<const X*>(p.x.data) + row * columns;
                const float inverse = p.inverse_rms.f32()[row];
                if (sums != nullptr) {
                  for (int64_t i = 0; i < columns; ++i)
                    sums[i] += load_value(grad_out + i) * (load_value(x + i) * inverse);
                }
                if (p.grad_x) {
                  backward_row(static_cast<X*>(p.grad_x.data) + row * columns, p.accumulate_x, grad_out, x,
                               static_cast<const W*>(p.weight.data), inverse, columns);
                }
              }
            });
      });
    });
  });
  if (p.grad_weight) merge_column_sums(context, p.grad_weight.f32(), partials, chunks, columns, columns);
}

}  // namespace gavel::cpu
