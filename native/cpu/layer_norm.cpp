// LayerNorm by rows, two passes for the variance. Backward, with n = (x - mean) * inverse and g = grad_out * weight:
// grad_x = inverse * (g - mean(g) - n * mean(g * n)).
#include "cpu/column_sums.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
namespace {

template <class X, class W>
GAVEL_INLINE void forward_row(X* __restrict out, float* statistics, const X* __restrict x, const W* __restrict weight,
                              const W* __restrict bias, int64_t columns, float eps) {
  const float count = static_cast<float>(columns);
  const float mean = lane_sum(
                         columns, [&](int64_t i) __attribute__((always_inline)) { return load_value(x + i); }) /
                     count;
  const float squares = lane_sum(
      columns, [&](int64_t i) __attribute__((always_inline)) {
        const float gap = load_value(x + i) - mean;
        return gap * gap;
      });
  const float inverse = 1.0f / __builtin_sqrtf(squares / count + eps);
  for (int64_t i = 0; i < columns; ++i) {
    store_value(out + i, (load_value(x + i) - mean) * inverse * load_value(weight + i) + load_value(bias + i));
  }
  statistics[0] = mean;
  statistics[1] = inverse;
}

template <class X, class W>
GAVEL_INLINE void backward_row(X* grad_x, bool accumulate, const X* grad_out, const X* x, const W* weight, float mean,
                               float inverse, int64_t columns) {
  const float count = static_cast<float>(columns);
  const float sum = lane_sum(
      columns, [&](int64_t i)
                   __attribute__((always_inline)) { return load_value(grad_out + i) * load_value(weight + i); });
  const float dot = lane_sum(
      columns, [&](int64_t i) __attribute__((always_inline)) {
        return load_value(grad_out + i) * load_value(weight + i) * ((load_value(x + i) - mean) * inverse);
      });
  const float mean_of_g = sum / count, mean_of_gn = dot / count;
  if (accumulate) {
    for (int64_t i = 0; i < columns; ++i) {
      const float g = load_value(grad_out + i) * load_value(weight + i), n = (load_value(x + i) - mean) * inverse;
      store_value(grad_x + i, load_value(grad_x + i) + (g - mean_of_g - n * mean_of_gn) * inverse);
    }
  } else {
    for (int64_t i = 0; i < columns; ++i) {
      const float g = load_value(grad_out + i) * load_value(weight + i), n = (load_value(x + i) - mean) * inverse;
      store_value(grad_x + i, (g - mean_of_g - n * mean_of_gn) * inverse);
    }
  }
}

}  // namespace

void layer_norm_forward(Context& context, const LayerNorm& p) {
  const int64_t columns = p.x.cols();
  with_element(p.x.dtype, [&](auto* x_type) {
    with_element(p.weight.dtype, [&](auto* weight_type) {
      using X = std::remove_pointer_t<decltype(x_type)>;
      using W = std::remove_pointer_t<decltype(weight_type)>;
      for_rows(
          context, p.x.rows(), columns, [&](int64_t row) __attribute__((always_inline)) {
            forward_row(static_cast<X*>(p.out.data) + row * columns, p.statistics.f32() + 2 * row,
                        static_cast<const X*>(p.x.data) + row * columns, static_cast<const W*>(p.weight.data),
                        static_cast<const W*>(p.bias.data), columns, p.eps);
          });
    });
  });
}

void layer_norm_backward(Context& context, const LayerNorm& p) {
  const int64_t rows = p.x.rows(), columns = p.x.cols(), chunks = num_pieces(rows, kSumRows);
  const bool sums_wanted = p.grad_weight || p.grad_bias;
  float* partials = nullptr;  // [chunks, 2, columns]: of the weight, of the bias
  if (sums_wanted) {
    partials =
        reinterpret_cast<float*>(context.scratch->shared(0, static_cast<size_t>(2 * chunks * columns) * sizeof(float)));
  }
  with_element(p.x.dtype, [&](auto* x_type) {
    with_element(p.weight.dtype, [&](auto* weight_type) {
      using X = std::remove_pointer_t<decltype(x_type)>;
      using W = std::remove_pointer_t<decltype(weight_type)>;
      context.pool->parallel_for(chunks, [&](int64_t chunk, int) {
        run_for_isa(
            context.isa, GAVEL_BODY {
              float* __restrict weight_sums = sums_wanted ? partials + 2 * chunk * columns : nullptr;
              float* __restrict bias_sums = sums_wanted ? weight_sums + columns : nullptr;
              for (int64_t i = 0; sums_wanted && i < 2 * columns; ++i) weight_sums[i] = 0.0f;
              for (int64_t row = chunk * kSumRows; row < std::min(rows, (chunk + 1) * kSumRows); ++row) {
                const X* grad_out = static_cast<const X*>(p.grad_out.data) + row * columns;
                const X* x = static_cast<const X*>(p.x.data) + row * columns;
                const float mean = p.statistics.f32()[2 * row], inverse = p.statistics.f32()[2 * row + 1];
                if (sums_wanted) {
                  for (int64_t i = 0; i < columns; ++i) {
                    weight_sums[i] += load_value(grad_out + i) * ((load_value(x + i) - mean) * inverse);
                  }
                  for (int64_t i = 0; i < columns; ++i) bias_sums[i] += load_value(grad_out + i);
                }
                if (p.grad_x) {
                  backward_row(static_cast<X*>(p.grad_x.data) + row * columns, p.accumulate_x, grad_out, x,
                               static_cast<const W*>(p.weight.data), mean, inverse, columns);
                }
              }
            });
      });
    });
  });
  if (p.grad_weight) merge_column_sums(context, p.grad_weight.f32(), partials, chunks, columns, 2 * columns);
  if (p.grad_bias) merge_column_sums(context, p.grad_bias.f32(), partials + columns, chunks, columns, 2 * columns);
}

}  // namespace gavel::cpu
