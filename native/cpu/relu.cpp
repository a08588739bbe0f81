// Contract in ops/relu.h.
#include "cpu/dispatch.h"
#include "cpu/kernels.h"

namespace gavel::cpu {

void relu_forward(Context& context, const Relu& p) {
  with_element(p.x.dtype, [&](auto* type) {
    using X = std::remove_pointer_t<decltype(type)>;
    const int64_t columns = p.x.cols();
    for_rows(
        context, p.x.rows(), columns, [&](int64_t row) __attribute__((always_inline)) {
          const X* x = static_cast<const X*>(p.x.data) + row * columns;
          X* __restrict out = static_cast<X*>(p.out.data) + row * columns;
          for (int64_t i = 0; i < columns; ++i) {
            const float value = load_value(x + i);
            store_value(out + i, choose(value <= 0.0f, 0.0f, value));
          }
        });
  });
}

void relu_backward(Context& context, const Relu& p) {
  if (!p.grad_x) return;
  with_element(p.x.dtype, [&](auto* type) {
    using X = std::remove_pointer_t<decltype(type)>;
    const int64_t columns = p.x.cols();
    for_rows(
        context, p.x.rows(), columns, [&](int64_t row) __attribute__((always_inline)) {
          const X* x = static_cast<const X*>(p.x.data) + row * columns;
          const X* grad_out = static_cast<const X*>(p.grad_out.data) + row * columns;
          X* __restrict grad_x = static_cast<X*>(p.grad_x.data) + row * columns;
          for (int64_t i = 0; i < columns; ++i) {
            store_value(grad_x + i, choose(load_value(x + i) <= 0.0f, 0.0f, load_value(grad_out + i)));
          }
        });
  });
}

}  // namespace gavel::cpu
