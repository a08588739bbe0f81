// AdamW (Loshchilov and Hutter 2019) over one parameter, elementwise in the packed order; torch.optim.AdamW's
// arithmetic. With a master, the master moves and the value is its rounding; a bf16 value without one, and bf16
// moments, are rounded stochastically. 8-bit moments: Dettmers et al. 2021, "8-bit Optimizers via Block-wise
// Quantization".
#pragma once
#include <array>
#include <cmath>

#include "core/tensor.h"

namespace gavel {

// Elements that share one scale of an 8-bit moment, in the packed order.
inline constexpr int64_t kStateBlock = 256;
constexpr int64_t state_blocks(int64_t count) { return (count + kStateBlock - 1) / kStateBlock; }

struct AdamW {
  Tensor value;   // fp32 or bf16
  Tensor master;  // fp32, or absent
  const float* grad = nullptr;
  Tensor moment1, moment2;   // both fp32, both bf16, or both u8 codes of the dynamic maps below
  float* scales1 = nullptr;  // [state_blocks(count)] largest magnitude of each block; only with u8 codes
  float* scales2 = nullptr;
  int64_t count = 0;
  double learning_rate = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  int64_t step = 1;         // from 1
  float grad_scale = 1.0f;  // of global clipping
  // Random bits of stochastic rounding: a pure function of (seed, parameter, element, step).
  uint64_t seed = 0, parameter = 0;
};

// What the elements of a step share, formed in double and rounded to fp32 once: the same on every device.
struct AdamWScalars {
  float grad_scale, keep, weight1, beta2, weight2, inverse_root2, eps, step_size;

  explicit AdamWScalars(const AdamW& p) {
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

// Element i of block b draws from random_bits({seed, parameter, step, b * 128 + i % 128}): words 0 and 1 where i < 128,
// words 2 and 3 elsewhere. The low and high half of the first word round moment1 and moment2, the low half of the
// second the value.
inline constexpr int64_t kDrawsPerBlock = kStateBlock / 2;

// The dynamic maps of 8-bit moments, in [-1, 1] and [0, 1]: decades 10^-7 ... 1, each cut twice as finely as the one
// below. Code 0 is 0, so zeroed memory is a zero moment. Codes ascend in magnitude; of the signed map bit 7 is the
// sign, and 0x80 is +1, which has no negative. Scaled by the largest magnitude of a block.
inline constexpr int kDynamicDecades = 7;

constexpr std::array<float, 256> make_dynamic_map(bool is_signed) {
  std::array<float, 256> map{};
  int code = 0;
  double scale = 1e-6;
  for (int decade = 0; decade < kDynamicDecades; ++decade, scale *= 10) {
    const int steps = is_signed ? 1 << decade : 2 << decade;
    for (int step = 0; step < steps; ++step) {
      const double value = scale * (0.1 + 0.9 * (step + 0.5) / steps);
      map[static_cast<size_t>(++code)] = static_cast<float>(value);
      if (is_signed) map[static_cast<size_t>(code + 128)] = static_cast<float>(-value);
    }
  }
  map[is_signed ? 128 : 255] = 1.0f;
  return map;
}
inline constexpr std::array<float, 256> kSignedMap = make_dynamic_map(true);
inline constexpr std::array<float, 256> kUnsignedMap = make_dynamic_map(false);

}  // namespace gavel
