#include <algorithm>
#include <cmath>
#include <vector>

#include "core/philox.h"
#include "reference/access.h"
#include "reference/kernels.h"

namespace gavel::reference {
namespace {

// `bits` in [0, 2^16) decide between the two bf16 neighbours, each as likely as the value is near it.
double round_stochastically(double value, uint32_t bits) {
  const uint32_t wide = std::bit_cast<uint32_t>(static_cast<float>(value));
  return bf16_to_float(static_cast<bf16_t>((wide + bits) >> 16));
}

uint8_t nearest_code(double value, const std::array<float, 256>& map) {
  int best = 0;
  for (int code = 1; code < 256; ++code) {
    if (std::fabs(map[static_cast<size_t>(code)] - value) < std::fabs(map[static_cast<size_t>(best)] - value))
      best = code;
  }
  return static_cast<uint8_t>(best);
}

double load_moment(const Tensor& moment, const float* scales, const std::array<float, 256>& map, int64_t i) {
  if (moment.dtype != DType::u8) return load(moment, i);
  return static_cast<double>(map[static_cast<const uint8_t*>(moment.data)[i]]) * scales[i / kStateBlock];
}

// A positive second moment never becomes zero: a step would then divide by eps alone.
void store_codes(const std::vector<double>& values, const Tensor& moment, float* scales,
                 const std::array<float, 256>& map, int64_t block, bool keep_positive) {
  double largest = 0;
  for (double value : values) largest = std::max(largest, std::fabs(value));
  scales[block] = static_cast<float>(largest);
  uint8_t* codes = static_cast<uint8_t*>(moment.data) + block * kStateBlock;
  for (size_t i = 0; i < values.size(); ++i) {
    codes[i] = largest > 0 ? nearest_code(values[i] / largest, map) : uint8_t{0};
    if (keep_positive && codes[i] == 0 && values[i] > 0) codes[i] = 1;
  }
}

}  // namespace

void adamw_forward(Context&, const AdamW& p) {
  const double correction1 = 1 - std::pow(p.beta1, static_cast<double>(p.step));
  const double correction2 = 1 - std::pow(p.beta2, static_cast<double>(p.step));
  const Tensor& parameter = p.master ? p.master : p.value;
  const DType state = p.moment1.dtype;
  std::vector<double> first, second;
  for (int64_t i = 0; i < p.count; ++i) {
    const int64_t block = i / kStateBlock, lane = i % kStateBlock;
    const auto words = random_bits({p.seed, p.parameter, static_cast<uint32_t>(p.step),
                                    static_cast<uint32_t>(block * kDrawsPerBlock + lane % kDrawsPerBlock)});
    const size_t at = lane < kDrawsPerBlock ? 0 : 2;
    const double g = static_cast<double>(p.grad[i]) * p.grad_scale;
    const double m = p.beta1 * load_moment(p.moment1, p.scales1, kSignedMap, i) + (1 - p.beta1) * g;
    const double v = p.beta2 * load_moment(p.moment2, p.scales2, kUnsignedMap, i) + (1 - p.beta2) * g * g;
    if (state == DType::u8) {
      first.push_back(m);
      second.push_back(v);
      if (lane + 1 == kStateBlock || i + 1 == p.count) {
        store_codes(first, p.moment1, p.scales1, kSignedMap, block, false);
        store_codes(second, p.moment2, p.scales2, kUnsignedMap, block, true);
        first.clear();
        second.clear();
      }
    } else {
      store(p.moment1, i, state == DType::bf16 ? round_stochastically(m, words[at] & 0xffffu) : m);
      store(p.moment2, i, state == DType::bf16 ? round_stochastically(v, words[at] >> 16) : v);
    }
    const double decayed = load(parameter, i) * (1 - p.learning_rate * p.weight_decay);
    const double moved = decayed - p.learning_rate * (m / correction1) / (std::sqrt(v / correction2) + p.eps);
    const bool stochastic = !p.master && p.value.dtype == DType::bf16;
    store(parameter, i, stochastic ? round_stochastically(moved, words[at + 1] & 0xffffu) : moved);
    if (p.master) store(p.value, i, load(parameter, i));
  }
}

}  // namespace gavel::reference
