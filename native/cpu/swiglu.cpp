// SwiGLU by rows; sigmoid(g) = 1 / (1 + exp(-g)).
#include "cpu/dispatch.h"
#include "cpu/kernels.h"

namespace gavel::cpu {

void swiglu_forward(Context& context, const Swiglu& p) {
  const int64_t columns = p.out.cols();
  with_element(p.x.dtype, [&](auto* type) {
    using X = std::remove_pointer_t<decltype(type)>;
    for_rows(
        context, p.out.rows(), columns, [&](int64_t row) __attribute__((always_inline)) {
          const X* gate = static_cast<const X*>(p.x.data) + row * 2 * columns;
          const X* up = gate + columns;
          X* __restrict out = static_cast<X*>(p.out.data) + row * columns;
          for (int64_t i = 0; i < columns; ++i) {
            const float g = load_value(gate + i);
            store_value(out + i, g / (1.0f + exp_in_loop(-g)) * load_value(up + i));
          }
        });
  });
}

void swiglu_backward(Context& context, const Swiglu& p) {
  const int64_t columns = p.out.cols();
  with_element(p.x.dtype, [&](auto* type) {
    using X = std::remove_pointer_t<decltype(type)>;
    for_rows(
        context, p.out.rows(), columns, [&](int64_t row) __attribute__((always_inline)) {
          const X* gate = static_cast<const X*>(p.x.data) + row * 2 * columns;
          const X* up = gate + columns;
          const X* grad_out = static_cast<const X*>(p.grad_out.data) + row * columns;
          X* __restrict grad_gate = static_cast<X*>(p.grad_x.data) + row * 2 * columns;
          X* __restrict grad_up = static_cast<X*>(p.grad_x.data) + row * 2 * columns + columns;
          for (int64_t i = 0; i < columns; ++i) {
            const float g = load_value(gate + i), u = load_value(up + i), d = load_value(grad_out + i);
            const float s = 1.0f / (1.0f + exp_in_loop(-g));
            store_value(grad_up + i, d * (g * s));
            store_value(grad_gate + i, d * u * (s * (1.0f + g * (1.0f - s))));
          }
        });
  });
}

}  // namespace gavel::cpu
