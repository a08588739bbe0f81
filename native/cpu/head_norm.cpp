// QK-norm by heads: rms_norm's arithmetic on head_dim columns, and its backward (see rms_norm.cpp).
#include "cpu/column_sums.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
namespace {

template <class X, class W>
GAVEL_INLINE float forward_head(X* __restrict out, const X* __restrict x, const W* __restrict weight, int64_t columns,
                                float eps) {
  const float squares = lane_sum(
      columns, [&](int64_t i) __attribute__((always_inline)) {
        const float value = load_value(x + i);
        return value * value;
      });
  const float inverse = 1.0f / __builtin_sqrtf(squares / static_cast<float>(columns) + eps);
  for (int64_t i = 0; i < columns; ++i) store_value(out + i, load_value(x + i) * inverse * load_value(weight + i));
  return inverse;
}

template <class X, class W>
GAVEL_INLINE void backward_head(X* __restrict grad_x, const X* __restrict grad_out, const X* __restrict x,
                                const W* __restrict weight, float inverse, int64_t columns) {
  const float dot = lane_sum(
      columns, [&](int64_t i) __attribute__((always_inline)) {
        return load_value(grad_out + i) * load_value(weight + i) * load_value(x + i);
      });
  const float shift = dot / static_cast<float>(columns) * inverse * inverse * inverse;
  for (int64_t i = 0; i < columns; ++i)
    store_value(grad_x + i, load_value(grad_out + i) * load_value(weight + i) * inverse - load_value(x + i) * shift);
}

}  // namespace

void head_norm_forward(Context& context, const HeadNorm& p) {
  const int64_t columns = p.x.cols(), heads = p.query_heads + p.key_heads, size = p.head_dim;
  with_element(p.x.dtype, [&](auto* x_type) {
    with_element(p.query_weight.dtype, [&](auto* weight_type) {
      using X = std::remove_pointer_t<decltype(x_type)>;
      using W = std::remove_pointer_t<decltype(weight_type)>;
      for_rows(
          context, p.x.rows(), columns, [&](int64_t row) __attribute__((always_inline)) {
            const X* x = static_cast<const X*>(p.x.data) + row * columns;
            X* out = static_cast<X*>(p.out.data) + row * columns;
            for (int64_t head = 0; head < heads; ++head) {
              const W* weight = static_cast<const W*>(head < p.query_heads ? p.query_weight.data : p.key_weight.data);
              p.inverse_rms.f32()[row * heads + head] =
                  forward_head(out + head * size, x + head * size, weight, size, p.eps);
            }
            for (int64_t i = heads * size; i < columns; ++i) out[i] = x[i];
          });
    });
  });
}

void head_norm_backward(Context& context, const HeadNorm& p) {
  const int64_t rows = p.x.rows(), columns = p.x.cols(), heads = p.query_heads + p.key_heads, size = p.head_dim,
                chunks = num_pieces(rows, kSumRows);
  float* partials = nullptr;  // [chunks][queries' sums, keys' sums]
  if (p.grad_query_weight || p.grad_key_weight) {
    partials =
        reinterpret_cast<float*>(context.scratch->shared(0, static_cast<size_t>(chunks * 2 * size) * sizeof(float)));
  }
  with_element(p.x.dtype, [&](auto* x_type) {
    with_element(p.query_weight.dtype, [&](auto* weight_type) {
      using X = std::remove_pointer_t<decltype(x_type)>;
      using W = std::remove_pointer_t<decltype(weight_type)>;
      context.pool->parallel_for(chunks, [&](int64_t chunk, int) {
        run_for_isa(
            context.isa, GAVEL_BODY {
              float* chunk_sums = partials == nullptr ? nullptr : partials + chunk * 2 * size;
              for (int64_t i = 0; chunk_sums != nullptr && i < 2 * size; ++i) chunk_sums[i] = 0.0f;
              for (int64_t row = chunk * kSumRows; row < std::min(rows, (chunk + 1) * kSumRows); ++row) {
                const X* grad_out = static_cast<const X*>(p.grad_out.data) + row * columns;
                const X* x = static_cast<const X*>(p.x.data) + row * columns;
                X* grad_x = p.grad_x ? static_cast<X*>(p.grad_x.data) + row * columns : nullptr;
                for (int64_t head = 0; head < heads; ++head) {
                  const bool query = head < p.query_heads;
                  const float inverse = p.inverse_rms.f32()[row * heads + head];
                  if (chunk_sums != nullptr) {
                    float* __restrict sums = chunk_sums + (query ? 0 : size);
                    const int64_t first = head * size;
                    for (int64_t i = 0; i < size; ++i)
                      sums[i] += load_value(grad_out + first + i) * (load_value(x + first + i) * inverse);
                  }
                  if (grad_x != nullptr) {
                    backward_head(grad_x + head * size, grad_out + head * size, x + head * size,
                                  static_cast<const W*>(query ? p.query_weight.data : p.key_weight.data), inverse,
                                  size);
                  }
                }
                for (int64_t i = heads * size; grad_x != nullptr && i < columns; ++i) grad_x[i] = grad_out[i];
              }
            });
      });
    });
  });
  if (p.grad_query_weight) merge_column_sums(context, p.grad_query_weight.f32(), partials, chunks, size, 2 * size);
  if (p.grad_key_weight) merge_column_sums(context, p.grad_key_weight.f32(), partials + size, chunks, size, 2 * size);
}

}  // namespace gavel::cpu
