// AdamW in the order of operations of torch's single-tensor loop: decay, first moment by lerp, second moment, then the
// step. Scalars are formed in double and rounded to fp32 once. Padding of panels stays zero: its gradient is zero.
#include <cmath>

#include "cpu/dispatch.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
namespace {

constexpr int64_t kElements = 8192;

struct Scalars {
  float grad_scale, keep, weight1, beta2, weight2, inverse_root2, eps, step_size;

  explicit Scalars(const AdamW& p) {
    const double correction1 = 1.0 - std::pow(p.beta1, static_cast<double>(p.step));
    const double correction2 = 1.0 - std::pow(p.beta2, static_cast<double>(p.step));
    grad_scale = p.grad_scale;
    keep = static_cast<float>(1.0 - p.learning_rate * p.weight_decay);
    weight1 = static_cast<float>(1.0 - p.beta1);
    beta2 = static_cast<float>(p.beta2);
    weight2 = static_cast<float>(1.0 - p.beta2);
    inverse_root2 = static_cast<float>(1.0 / std::sqrt(correction2));
    eps = static_cast<float>(p.eps);
    step_size = static_cast<float>(p.learning_rate / correction1);
  }
};

// Scalars by value: through a reference the compiler would reload them after every store and could not vectorise.
GAVEL_INLINE void update(float* __restrict parameter, float* __restrict moment1, float* __restrict moment2,
                         const float* __restrict grad, int64_t count, const Scalars s) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = grad[i] * s.grad_scale;
    const float m = moment1[i] + (g - moment1[i]) * s.weight1;
    const float v = moment2[i] * s.beta2 + g * g * s.weight2;
    moment1[i] = m;
    moment2[i] = v;
    parameter[i] = parameter[i] * s.keep - m / (__builtin_sqrtf(v) * s.inverse_root2 + s.eps) * s.step_size;
  }
}

template <class X>
GAVEL_INLINE void round_to(X* __restrict value, const float* __restrict master, int64_t count) {
  for (int64_t i = 0; i < count; ++i) store_value(value + i, master[i]);
}

}  // namespace

void adamw_forward(Context& context, const AdamW& p) {
  const Scalars scalars(p);
  float* parameter = p.master ? p.master.f32() : p.value.f32();
  context.pool->parallel_for(num_pieces(p.count, kElements), [&](int64_t item, int) {
    const int64_t begin = item * kElements, count = std::min(kElements, p.count - begin);
    run_for_isa(
        context.isa, GAVEL_BODY {
          update(parameter + begin, p.moment1 + begin, p.moment2 + begin, p.grad + begin, count, scalars);
          if (!p.master) return;
          if (p.value.dtype == DType::bf16) {
            round_to(p.value.bf16() + begin, parameter + begin, count);
          } else {
            round_to(p.value.f32() + begin, parameter + begin, count);
          }
        });
  });
}

}  // namespace gavel::cpu
