// gelu by erfc, or the tanh form, whose 0.5 (1 + tanh u) is 1 / (1 + exp(-2 u)): both keep their digits far below 0.
#include "cuda/device_math.cuh"
#include "cuda/kernels.h"
#include "cuda/pointwise.cuh"

namespace gavel::cuda {
namespace {

struct Exact {
  // erfc falls as exp(-t^2), so far below 0 the rounding of t would show: its rest is put in by the slope of log erfc.
  static __device__ float phi(float x) {
    constexpr float kHigh = -0.707106769084930420f, kLow = -1.21016175e-8f;  // -sqrt(1/2)
    const float t = __fmul_rn(x, kHigh), rest = __fmaf_rn(x, kHigh, -t);
    const float whole = __fmaf_rn(x, kLow, rest), slope = __fmaf_rn(-2.0f, fmaxf(t, 0.0f), -1.128f);
    const float tail = __fmul_rn(0.5f, erfcf(t));
    return tail > 0.0f && tail < 1.0f ? __fmaf_rn(__fmul_rn(tail, whole), slope, tail) : tail;
  }
  __device__ float value(float x) const { return __fmul_rn(x, phi(x)); }
  __device__ float gradient(float x, float grad) const {
    const float density = __fmul_rn(0.3989422804014327f, exp_one(__fmul_rn(__fmul_rn(-0.5f, x), x)));
    return __fmul_rn(grad, __fmaf_rn(x, density, phi(x)));
  }
};

struct Tanh {
  static constexpr float kRoot = 0.7978845608028654f, kCubic = 0.044715f;  // sqrt(2 / pi)
  // phi, and 1 - phi with digits of its own. Below -43.9 phi is no normal number any more.
  static __device__ float phi(float x, float* rest) {
    const float u = __fmul_rn(kRoot, __fmaf_rn(__fmul_rn(kCubic, __fmul_rn(x, x)), x, x));
    const bool gone = u < -43.9f;
    const float e = exp_one(__fmul_rn(-2.0f, gone ? 0.0f : u)), result = __fdiv_rn(1.0f, __fadd_rn(1.0f, e));
    *rest = gone ? 1.0f : __fmul_rn(e, result);
    return gone ? 0.0f : result;
  }
  __device__ float value(float x) const {
    float rest;
    return __fmul_rn(x, phi(x, &rest));
  }
  __device__ float gradient(float x, float grad) const {
    // tanh' of u is 4 phi (1 - phi), which is 0 long before |x| is 16.
    float rest;
    const float p = phi(x, &rest), near = fmaxf(fminf(x, 16.0f), -16.0f);
    const float slope = __fmul_rn(kRoot, __fmaf_rn(__fmul_rn(3.0f * kCubic, near), near, 1.0f));
    return __fmul_rn(grad, __fmaf_rn(x, __fmul_rn(__fmul_rn(2.0f, __fmul_rn(p, rest)), slope), p));
  }
};

}  // namespace

void gelu_forward(Launch& launch, const Gelu& p) {
  if (p.tanh_approximation) {
    pointwise_forward(launch, p, Tanh{});
  } else {
    pointwise_forward(launch, p, Exact{});
  }
}

void gelu_backward(Launch& launch, const Gelu& p) {
  if (p.tanh_approximation) {
    pointwise_backward(launch, p, Tanh{});
  } else {
    pointwise_backward(launch, p, Exact{});
  }
}

}  // namespace gavel::cuda
