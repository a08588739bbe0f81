// One query visits one block, in scalar code: the definition that every instruction set reproduces bit for bit.
//   score[key] = (chain over d ascending of fma; bf16: pairs of d, the odd one first) * scale, -inf where not visible
//   max' = max(max, scores); while that is -inf, 0 is subtracted instead: (-inf) - (-inf) would be NaN, and p stays +0
//   p = exp(score - max'), factor = exp(max - max'), sum = fma(sum, factor, tree(p)), tree as in lane_tree below
//   out[d] = chain over keys ascending of fma from out[d] * factor (bf16: p rounded, pairs of keys, the odd one first)
// A hidden key adds p * v = +-0: leaving it out changes at most the sign of a zero, which finish() removes.
#pragma once
#include <algorithm>
#include <cstring>
#include <limits>

#include "cpu/attention_block.h"
#include "cpu/vector_math.h"

namespace gavel::cpu {

inline constexpr float kNoScore = -std::numeric_limits<float>::infinity();

template <bool kBf16>
GAVEL_INLINE float mac(float sum, uint32_t left, uint32_t right) {
  if constexpr (kBf16) {
    const auto high = [](uint32_t pair) { return std::bit_cast<float>(pair & 0xffff0000u); };
    const auto low = [](uint32_t pair) { return std::bit_cast<float>(pair << 16); };
    sum = __builtin_fmaf(high(left), high(right), sum);
    return __builtin_fmaf(low(left), low(right), sum);
  } else {
    return __builtin_fmaf(std::bit_cast<float>(left), std::bit_cast<float>(right), sum);
  }
}

template <class Combine>
GAVEL_INLINE float lane_tree(const float* x, const Combine& combine) {
  float lanes[16];
  for (int i = 0; i < 16; ++i) lanes[i] = combine(combine(x[i], x[i + 16]), combine(x[i + 32], x[i + 48]));
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] = combine(lanes[i], lanes[i + width]);
  }
  return lanes[0];
}

template <bool kBf16>
GAVEL_INLINE void visit_portable(const BlockVisit& step) {
  const int32_t steps = kBf16 ? step.head_dim / 2 : step.head_dim;
  const auto* keys = static_cast<const uint32_t*>(step.keys);
  const auto* values = static_cast<const uint32_t*>(step.values);
  for (int32_t i = 0; i < step.count; ++i) {
    float score[kKeyBlock] = {};
    const auto* query = static_cast<const uint8_t*>(step.query[i]);
    for (int32_t d = 0; d < steps; ++d) {
      uint32_t word;
      std::memcpy(&word, query + 4 * d, 4);
      for (int32_t key = 0; key < kKeyBlock; ++key)
        score[key] = mac<kBf16>(score[key], word, keys[d * kKeyBlock + key]);
    }
    const int32_t visible = step.visible[i];
    for (int32_t key = 0; key < kKeyBlock; ++key) score[key] = key < visible ? score[key] * step.scale : kNoScore;
    float* state = step.state[i];
    const float top = std::max(state[0], lane_tree(score, [](float a, float b) { return a > b ? a : b; }));
    const float shift = top == kNoScore ? 0.0f : top;
    const float factor = exp_one(state[0] - shift);
    for (int32_t key = 0; key < kKeyBlock; ++key) score[key] = exp_one(score[key] - shift);
    state[0] = top;
    state[1] = __builtin_fmaf(state[1], factor, lane_tree(score, [](float a, float b) { return a + b; }));

    float* out = state + kStateHeader;
    for (int32_t d = 0; d < step.head_dim; ++d) out[d] *= factor;
    const int32_t words = kBf16 ? (visible + 1) / 2 : visible;
    for (int32_t word = 0; word < words; ++word) {
      const uint32_t p = kBf16 ? (uint32_t{float_to_bf16(score[2 * word + 1])} << 16) | float_to_bf16(score[2 * word])
                               : std::bit_cast<uint32_t>(score[word]);
      for (int32_t d = 0; d < step.head_dim; ++d) out[d] = mac<kBf16>(out[d], p, values[word * step.head_dim + d]);
    }
  }
}

template <bool kBf16>
GAVEL_INLINE float finish_portable(const float* state, int32_t head_dim, void* out) {
  const bool empty = state[1] == 0.0f;  // false for NaN, which must be seen
  const float inverse = empty ? 0.0f : 1.0f / state[1];
  for (int32_t d = 0; d < head_dim; ++d) {
    const float value = state[kStateHeader + d] * inverse + 0.0f;  // + 0 turns -0 into +0
    if constexpr (kBf16) {
      static_cast<bf16_t*>(out)[d] = float_to_bf16(value);
    } else {
      static_cast<float*>(out)[d] = value;
    }
  }
  return empty ? kNoScore : state[0] + log_one(state[1]);
}

}  // namespace gavel::cpu
