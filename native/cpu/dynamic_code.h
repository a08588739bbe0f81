// 8-bit codes of a block of values: nearest entry of the dynamic map, found by arithmetic instead of search, so that
// the loops vectorise. Which of two codes a value within rounding of their middle gets is fixed, but not specified.
#pragma once
#include <array>

#include "cpu/dispatch.h"
#include "ops/adamw.h"

namespace gavel::cpu {

// What decides a code: values from edges[i] on lie in decade i, which has `first_steps << i` codes evenly spaced.
struct DynamicDecades {
  std::array<float, kDynamicDecades> edges{}, slopes{};
  float zero_below = 0, one_from = 0;
};

constexpr DynamicDecades make_decades(const std::array<float, 256>& map, int first_steps, size_t top) {
  DynamicDecades made;
  double scale = 1e-6;
  size_t first = 1;
  for (size_t decade = 0; decade < kDynamicDecades; ++decade, scale *= 10) {
    const size_t steps = static_cast<size_t>(first_steps) << decade;
    made.slopes[decade] = static_cast<float>(static_cast<double>(steps) / (0.9 * scale));
    if (decade > 0) made.edges[decade] = 0.5f * (map[first - 1] + map[first]);
    first += steps;
  }
  made.zero_below = 0.5f * map[1];
  made.one_from = 0.5f * (map[top] + 1.0f);
  return made;
}
inline constexpr DynamicDecades kSignedDecades = make_decades(kSignedMap, 1, 127);
inline constexpr DynamicDecades kUnsignedDecades = make_decades(kUnsignedMap, 2, 254);

GAVEL_INLINE void decode(float* __restrict out, const uint8_t* __restrict codes, float scale,
                         const float* __restrict map, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = map[codes[i]] * scale;
}

// Returns the block's scale, the largest magnitude.
template <bool kSigned>
GAVEL_INLINE float encode(uint8_t* __restrict codes, const float* __restrict values, int64_t count) {
  constexpr const DynamicDecades& decades = kSigned ? kSignedDecades : kUnsignedDecades;
  constexpr int kFirst = kSigned ? 1 : 2;
  // Magnitudes order like their bits, and a maximum of integers vectorises.
  int32_t bits = 0;
  for (int64_t i = 0; i < count; ++i)
    bits = std::max(bits, static_cast<int32_t>(std::bit_cast<uint32_t>(values[i]) & 0x7fffffffu));
  const float largest = std::bit_cast<float>(bits);
  const float inverse = largest > 0.0f ? 1.0f / largest : 0.0f;
  for (int64_t i = 0; i < count; ++i) {
    const float scaled = values[i] * inverse, magnitude = __builtin_fabsf(scaled);
    float slope = decades.slopes[0];
    int32_t decade = 0;
#pragma GCC unroll 6
    for (size_t next = 1; next < kDynamicDecades; ++next) {
      const bool above = magnitude >= decades.edges[next];
      slope = choose(above, decades.slopes[next], slope);
      decade += static_cast<int32_t>(above);
    }
    const int32_t steps = kFirst << decade;
    int32_t place = static_cast<int32_t>(magnitude * slope - static_cast<float>(steps) * (0.1f / 0.9f));
    place = std::min(std::max(place, 0), steps - 1);
    int32_t code = steps + place - (kSigned ? 0 : 1);
    if constexpr (kSigned) {
      const int32_t sign = static_cast<int32_t>(std::bit_cast<uint32_t>(scaled) >> 31) << 7;
      code = scaled >= decades.one_from ? 128 : (code | sign);
      code = magnitude < decades.zero_below ? 0 : code;
    } else {
      code = magnitude >= decades.one_from ? 255 : code;
      // A positive second moment never becomes zero: a step would then divide by eps alone.
      code = values[i] > 0.0f ? code : 0;
    }
    codes[i] = static_cast<uint8_t>(code);
  }
  return largest;
}

}  // namespace gavel::cpu
