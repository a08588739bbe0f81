// AdamW in the order of operations of torch's single-tensor loop: decay, first moment by lerp, second moment, then the
// step. Scalars are formed in double and rounded to fp32 once. Padding of panels stays zero: its gradient is zero.
#include <cmath>

#include "cpu/dispatch.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
namespace {
constexpr int64_t kElements = 8192;
}

void adamw_forward(Context& context, const AdamW& p) {
  const double correction1 = 1.0 - std::pow(p.beta1, static_cast<double>(p.step));
  const double correction2 = 1.0 - std::pow(p.beta2, static_cast<double>(p.step));
  const float keep = static_cast<float>(1.0 - p.learning_rate * p.weight_decay);
  const float weight1 = static_cast<float>(1.0 - p.beta1);
  const float beta2 = static_cast<float>(p.beta2), weight2 = static_cast<float>(1.0 - p.beta2);
  const float step_size = static_cast<float>(p.learning_rate / correction1);
  const float root2 = static_cast<float>(std::sqrt(correction2)), eps = static_cast<float>(p.eps);
  const float scale = p.grad_scale;
  float* parameter = p.master ? p.master.f32() : p.value.f32();
  context.pool->parallel_for(divide_up(p.count, kElements), [&](int64_t item, int) {
    const int64_t begin = item * kElements, count = std::min(kElements, p.count - begin);
    const float* __restrict grad = p.grad + begin;
    float* __restrict moment1 = p.moment1 + begin;
    float* __restrict moment2 = p.moment2 + begin;
    float* __restrict master = parameter + begin;
    run_for_isa(context.isa, GAVEL_BODY {
      for (int64_t i = 0; i < count; ++i) {
        const float g = grad[i] * scale;
        const float m = moment1[i] + (g - moment1[i]) * weight1;
        const float v = moment2[i] * beta2 + g * g * weight2;
        moment1[i] = m;
        moment2[i] = v;
        master[i] = master[i] * keep - m / (__builtin_sqrtf(v) / root2 + eps) * step_size;
      }
    });
    if (!p.master) return;
    with_element(p.value.dtype, [&](auto* type) {
      auto* __restrict value = static_cast<decltype(type)>(p.value.data) + begin;
      run_for_isa(context.isa, GAVEL_BODY {
        for (int64_t i = 0; i < count; ++i) store_value(value + i, master[i]);
      });
    });
  });
}

}  // namespace gavel::cpu
