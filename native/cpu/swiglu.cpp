// SwiGLU by pieces of a row. sigmoid(g) = 1 / (1 + exp(-g)); exp has its own pass over a piece that stays in the L1 cache.
#include "cpu/dispatch.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
void swiglu_forward(Context& context, const Swiglu& p) {
  const int64_t rows = p.out.rows(), columns = p.out.cols();
  with_element(p.x.dtype, [&](auto* type) {
    using X = std::remove_pointer_t<decltype(type)>;
    for_pieces(context, rows, columns, [&](int64_t row, int64_t begin, int64_t count) {
      alignas(64) float e[kPiece];
      const X* gate = static_cast<const X*>(p.x.data) + row * 2 * columns + begin;
      const X* up = gate + columns;
      X* out = static_cast<X*>(p.out.data) + row * columns + begin;
      run_for_isa(context.isa, GAVEL_BODY {
        for (int64_t i = 0; i < count; ++i) e[i] = -load_value(gate + i);
      });
      exp_row(context.isa, e, count);
      run_for_isa(context.isa, GAVEL_BODY {
        for (int64_t i = 0; i < count; ++i) {
          store_value(out + i, load_value(gate + i) / (1.0f + e[i]) * load_value(up + i));
        }
      });
    });
  });
}

void swiglu_backward(Context& context, const Swiglu& p) {
  const int64_t rows = p.out.rows(), columns = p.out.cols();
  with_element(p.x.dtype, [&](auto* type) {
    using X = std::remove_pointer_t<decltype(type)>;
    for_pieces(context, rows, columns, [&](int64_t row, int64_t begin, int64_t count) {
      alignas(64) float e[kPiece];
      const X* gate = static_cast<const X*>(p.x.data) + row * 2 * columns + begin;
      const X* up = gate + columns;
      const X* grad_out = static_cast<const X*>(p.grad_out.data) + row * columns + begin;
      X* __restrict grad_gate = static_cast<X*>(p.grad_x.data) + row * 2 * columns + begin;
      X* __restrict grad_up = grad_gate + columns;
      run_for_isa(context.isa, GAVEL_BODY {
        for (int64_t i = 0; i < count; ++i) e[i] = -load_value(gate + i);
      });
      exp_row(context.isa, e, count);
      run_for_isa(context.isa, GAVEL_BODY {
        for (int64_t i = 0; i < count; ++i) {
          const float g = load_value(gate + i), u = load_value(up + i), d = load_value(grad_out + i);
          const float s = 1.0f / (1.0f + e[i]);
          store_value(grad_up + i, d * (g * s));
          store_value(grad_gate + i, d * u * (s * (1.0f + g * (1.0f - s))));
        }
      });
    });
  });
}

}  // namespace gavel::cpu
