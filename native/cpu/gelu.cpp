// GELU. Exact: Phi(x) is 0.5 + x S(x^2) for |x| < 1 and else from t P(t - 1/2) exp(-x^2 / 2) with t = 1 / (1 + c |x|),
// a fit of erfc; within 2.3e-6 of Phi relatively on [-9, 9], 3e-7 on [-1, 1], 1e-7 absolutely for x < -1. The density
// shares the exp. Tanh form: (1 + tanh u) / 2 = sigmoid(2 u), so no tanh is needed.
#include "cpu/dispatch.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
namespace {

// Minimax fits made for this file (relative error 1.1e-8 and 3e-9 before rounding to fp32).
constexpr float kTail[11] = {0.04235246405005455f, -0.01909487508237362f, -0.07621385902166367f, 0.05530813708901405f,
                             0.09779288619756699f, -0.10382100194692612f, -0.17202149331569672f, 0.1457751840353012f,
                             0.5589428544044495f,  0.6871606111526489f,   0.5107913613319397f};
constexpr float kTailScale = 0.35355339059327376f;  // 0.5 / sqrt(2)
constexpr float kCentre[6] = {-7.662472853553481e-06f, 0.0001135071215685457f, -0.0011863481486216187f,
                              0.009973330423235893f,   -0.06649035960435867f,  0.3989422917366028f};
constexpr float kDensity = 0.3989422804014327f;    // 1 / sqrt(2 pi)
constexpr float kTanhScale = 1.5957691216057308f;  // 2 sqrt(2 / pi)
constexpr float kTanhCube = 0.044715f;

template <int kCount>
GAVEL_INLINE float polynomial(const float (&coefficients)[kCount], float x) {
  float value = coefficients[0];
#pragma GCC unroll 16
  for (int i = 1; i < kCount; ++i) value = __builtin_fmaf(value, x, coefficients[i]);
  return value;
}

// Phi(x), given e = exp(-x^2 / 2).
GAVEL_INLINE float normal_cdf(float x, float e) {
  const float square = x * x;
  const float centre = 0.5f + x * polynomial(kCentre, square);
  const float t = 1.0f / (1.0f + kTailScale * __builtin_fabsf(x)), s = t - 0.5f;
  const float tail = 0.5f * (polynomial(kTail, s) * t * e);
  return choose(square < 1.0f, centre, choose(x < 0.0f, tail, 1.0f - tail));
}

GAVEL_INLINE float tanh_exponent(float x) { return -(kTanhScale * (x + kTanhCube * x * x * x)); }

}  // namespace

void gelu_forward(Context& context, const Gelu& p) {
  with_element(p.x.dtype, [&](auto* type) {
    using X = std::remove_pointer_t<decltype(type)>;
    const int64_t columns = p.x.cols();
    for_rows(
        context, p.x.rows(), columns, [&](int64_t row) __attribute__((always_inline)) {
          const X* x = static_cast<const X*>(p.x.data) + row * columns;
          X* __restrict out = static_cast<X*>(p.out.data) + row * columns;
          if (p.tanh_approximation) {
            for (int64_t i = 0; i < columns; ++i) {
              const float value = load_value(x + i);
              store_value(out + i, value / (1.0f + exp_in_loop(tanh_exponent(value))));
            }
          } else {
            for (int64_t i = 0; i < columns; ++i) {
              const float value = load_value(x + i);
              store_value(out + i, value * normal_cdf(value, exp_in_loop(-0.5f * (value * value))));
            }
          }
        });
  });
}

void gelu_backward(Context& context, const Gelu& p) {
  with_element(p.x.dtype, [&](auto* type) {
    using X = std::remove_pointer_t<decltype(type)>;
    const int64_t columns = p.x.cols();
    for_rows(
        context, p.x.rows(), columns, [&](int64_t row) __attribute__((always_inline)) {
          const X* x = static_cast<const X*>(p.x.data) + row * columns;
          const X* grad_out = static_cast<const X*>(p.grad_out.data) + row * columns;
          X* __restrict grad_x = static_cast<X*>(p.grad_x.data) + row * columns;
          if (p.tanh_approximation) {
            for (int64_t i = 0; i < columns; ++i) {
              // Beyond 30 the sigmoid is 0 or 1 in fp32; the bounds only keep infinity out of 0 * infinity.
              const float value = load_value(x + i),
                          y = choose(value > 30.0f, 30.0f, choose(value < -30.0f, -30.0f, value));
              const float full = exp_in_loop(tanh_exponent(value)), e = choose(full > 1e30f, 1e30f, full);
              const float s = 1.0f / (1.0f + e), slope = kTanhScale * (1.0f + 3.0f * kTanhCube * y * y);
              // 1 - s = e s without cancellation.
              store_value(grad_x + i, load_value(grad_out + i) * (s + y * s * (e * s) * slope));
            }
          } else {
            for (int64_t i = 0; i < columns; ++i) {
              const float value = load_value(x + i), e = exp_in_loop(-0.5f * (value * value));
              store_value(grad_x + i, load_value(grad_out + i) * (normal_cdf(value, e) + value * e * kDensity));
            }
          }
        });
  });
}

}  // namespace gavel::cpu
