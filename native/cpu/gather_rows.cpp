// Contract in ops/gather_rows.h. The backward deals ranges of columns, so that rows asked for twice meet in order.
#include <cstring>

#include "cpu/dispatch.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
namespace {

constexpr int64_t kColumns = 256;

void zero_rows(Context& context, const Tensor& tensor) {
  const size_t row_bytes = static_cast<size_t>(tensor.cols()) * dtype_size(tensor.dtype);
  const int64_t rows = tensor.rows(), step = rows_per_item(tensor.cols());
  context.pool->parallel_for(num_pieces(rows, step), [&](int64_t item, int) {
    const int64_t begin = item * step, count = std::min(rows, begin + step) - begin;
    std::memset(static_cast<uint8_t*>(tensor.data) + static_cast<size_t>(begin) * row_bytes, 0,
                static_cast<size_t>(count) * row_bytes);
  });
}

}  // namespace

void gather_rows_forward(Context& context, const GatherRows& p) {
  const int64_t columns = p.x.cols();
  if (p.out.dtype == p.x.dtype) {
    const size_t bytes = static_cast<size_t>(columns) * dtype_size(p.x.dtype);
    return for_rows(context, p.out.rows(), columns, [&](int64_t row) {
      std::memcpy(static_cast<uint8_t*>(p.out.data) + static_cast<size_t>(row) * bytes,
                  static_cast<const uint8_t*>(p.x.data) + static_cast<size_t>(p.rows[row]) * bytes, bytes);
    });
  }
  with_element(p.x.dtype, [&](auto* type) {
    using X = std::remove_pointer_t<decltype(type)>;
    for_rows(
        context, p.out.rows(), columns, [&](int64_t row) __attribute__((always_inline)) {
          const X* x = static_cast<const X*>(p.x.data) + int64_t{p.rows[row]} * columns;
          float* __restrict out = p.out.f32() + row * columns;
          for (int64_t i = 0; i < columns; ++i) out[i] = load_value(x + i);
        });
  });
}

void gather_rows_backward(Context& context, const GatherRows& p) {
  if (!p.grad_x) return;
  if (!p.accumulate_x) zero_rows(context, p.grad_x);
  with_element(p.x.dtype, [&](auto* type) {
    with_element(p.grad_out.dtype, [&](auto* out_type) {
      using X = std::remove_pointer_t<decltype(type)>;
      using Out = std::remove_pointer_t<decltype(out_type)>;
      const int64_t columns = p.x.cols(), count = p.out.rows();
      context.pool->parallel_for(num_pieces(columns, kColumns), [&](int64_t item, int) {
        run_for_isa(
            context.isa, GAVEL_BODY {
              const int64_t begin = item * kColumns, end = std::min(columns, begin + kColumns);
              for (int64_t row = 0; row < count; ++row) {
                const Out* grad_out = static_cast<const Out*>(p.grad_out.data) + row * columns;
                X* __restrict grad_x = static_cast<X*>(p.grad_x.data) + int64_t{p.rows[row]} * columns;
                for (int64_t i = begin; i < end; ++i)
                  store_value(grad_x + i, load_value(grad_x + i) + load_value(grad_out + i));
              }
            });
      });
    });
  });
}

}  // namespace gavel::cpu
