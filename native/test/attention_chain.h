// Attention of one query written as the declared chain of scalar operations, apart from the kernels: what the bits must
// be. Switches turn on the mistakes that would break exactness, so that tests can show that they would be seen.
#pragma once
#include <algorithm>
#include <bit>
#include <vector>

#include "cpu/vector_math.h"
#include "ops/attention.h"

namespace gavel::test {

struct ChainMistakes {
  int32_t origin = 0;            // blocks counted from this key instead of key 0
  bool max_before_mask = false;  // future keys of the block enter the running max
  bool even_first = false;       // order within a bf16 pair
};

// One sequence: rows of q, k, v as floats (bf16 values widened), D apart. Row `query` sees keys 0..keys - 1.
struct ChainInput {
  int32_t head_dim;
  float scale;
  DType dtype;
  bool amx;
  std::vector<const float*> keys, values;
};

inline float chain_pair(float sum, const float* a, const float* b, bool even_first) {
  const int first = even_first ? 0 : 1;
  sum = __builtin_fmaf(a[first], b[first], sum);
  return __builtin_fmaf(a[1 - first], b[1 - first], sum);
}

// One tdpbf16ps: even and odd products of up to 32 in two chains from +0, their sum added.
template <class Product>
float chain_tile(float sum, int32_t count, const Product& product) {
  float even = 0.0f, odd = 0.0f;
  for (int32_t i = 0; i < count; i += 2) {
    even = product(i, even);
    odd = product(i + 1, odd);
  }
  return sum + (even + odd);
}

// 2^x as the AMX path computes it.
inline float chain_exp2(float x) {
  x = x > -127.0f || x != x ? x : -127.0f;
  const float shifted = x + cpu::kRoundMagic, r = x - (shifted - cpu::kRoundMagic);
  float p = 1.3264727e-3f;
  for (float c : {9.671513e-3f, 5.5507336e-2f, 2.4022242e-1f, 6.93147e-1f, 1.0f}) p = __builtin_fmaf(p, r, c);
  p = std::bit_cast<float>(std::bit_cast<uint32_t>(p) + (std::bit_cast<uint32_t>(shifted) << 23));
  return p + 0.0f;
}

// The caller has flush-to-zero set. Writes D values and returns the log-sum-exp.
inline float attention_chain(const ChainInput& input, const float* query, int32_t visible, float* out,
                             const ChainMistakes& mistakes = {}) {
  const float none = -std::numeric_limits<float>::infinity();
  const bool pairs = input.dtype == DType::bf16;
  const auto total = static_cast<int32_t>(input.keys.size());
  const auto dims = static_cast<size_t>(input.head_dim);
  std::vector<float> sums(dims, 0.0f);
  const float power = input.scale * cpu::kLog2e;
  float top = none, sum = 0.0f;
  const int32_t first = mistakes.origin % kKeyBlock;
  for (int32_t begin = first == 0 ? 0 : first - kKeyBlock; begin < visible; begin += kKeyBlock) {
    float p[kKeyBlock], block_top = none;
    for (int32_t slot = 0; slot < kKeyBlock; ++slot) {
      const int32_t key = begin + slot;
      p[slot] = none;
      if (key < 0 || key >= (mistakes.max_before_mask ? total : visible)) continue;
      const float* k = input.keys[static_cast<size_t>(key)];
      float score = 0.0f;
      for (int32_t d = 0; d < input.head_dim && input.amx; d += 32) {
        score = chain_tile(score, std::min(32, input.head_dim - d),
                           [&](int32_t i, float chain) { return __builtin_fmaf(query[d + i], k[d + i], chain); });
      }
      for (int32_t d = 0; d < input.head_dim && !input.amx; d += pairs ? 2 : 1) {
        score =
            pairs ? chain_pair(score, query + d, k + d, mistakes.even_first) : __builtin_fmaf(query[d], k[d], score);
      }
      if (!input.amx) score *= input.scale;
      block_top = score > block_top ? score : block_top;
      if (key < visible) p[slot] = score;
    }
    if (input.amx) block_top *= power;
    const float new_top = block_top > top ? block_top : top;
    if (new_top == none) continue;
    const float factor = input.amx ? chain_exp2(top - new_top) : cpu::exp_one(top - new_top);
    for (float& value : p) {
      value = input.amx ? chain_exp2(__builtin_fmaf(value, power, -new_top)) : cpu::exp_one(value - new_top);
    }
    float lanes[16];
    for (int i = 0; i < 16; ++i) lanes[i] = (p[i] + p[i + 16]) + (p[i + 32] + p[i + 48]);
    for (int width = 8; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
    }
    sum = __builtin_fmaf(sum, factor, lanes[0]);
    top = new_top;
    if (pairs) {
      for (float& value : p) value = bf16_to_float(float_to_bf16(value));
    }
    for (size_t d = 0; d < dims; ++d) {
      const auto value_at = [&](int32_t slot) {
        const int32_t key = begin + slot;
        return key >= 0 && key < total ? input.values[static_cast<size_t>(key)][d] : 0.0f;
      };
      float value = sums[d] * factor;
      for (int32_t slot = 0; slot < kKeyBlock && input.amx; slot += 32) {
        value = chain_tile(
            value, 32, [&](int32_t i, float chain) { return __builtin_fmaf(p[slot + i], value_at(slot + i), chain); });
      }
      for (int32_t slot = 0; slot < kKeyBlock && !input.amx; slot += 2) {
        const float v[2] = {value_at(slot), value_at(slot + 1)};
        value = chain_pair(value, p + slot, v, pairs ? mistakes.even_first : true);
      }
      sums[d] = value;
    }
  }
  const float inverse = 1.0f / sum;
  for (size_t d = 0; d < dims; ++d) out[d] = sums[d] * inverse + 0.0f;
  return input.amx ? __builtin_fmaf(top, 0.693147180559945309f, cpu::log_one(sum)) : top + cpu::log_one(sum);
}

}  // namespace gavel::test
