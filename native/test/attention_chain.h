// Attention of one query written as the declared chain of scalar operations, apart from the kernels: what the bits must
// be. Switches turn on the mistakes that would break exactness, so that tests can show that they would be seen.
#pragma once
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
  std::vector<const float*> keys, values;
};

inline float chain_pair(float sum, const float* a, const float* b, bool even_first) {
  const int first = even_first ? 0 : 1;
  sum = __builtin_fmaf(a[first], b[first], sum);
  return __builtin_fmaf(a[1 - first], b[1 - first], sum);
}

// The caller has flush-to-zero set. Writes D values and returns the log-sum-exp.
inline float attention_chain(const ChainInput& input, const float* query, int32_t visible, float* out,
                             const ChainMistakes& mistakes = {}) {
  const float none = -std::numeric_limits<float>::infinity();
  const bool pairs = input.dtype == DType::bf16;
  const auto total = static_cast<int32_t>(input.keys.size());
  const auto dims = static_cast<size_t>(input.head_dim);
  std::vector<float> sums(dims, 0.0f);
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
      for (int32_t d = 0; d < input.head_dim; d += pairs ? 2 : 1) {
        score =
            pairs ? chain_pair(score, query + d, k + d, mistakes.even_first) : __builtin_fmaf(query[d], k[d], score);
      }
      score *= input.scale;
      block_top = score > block_top ? score : block_top;
      if (key < visible) p[slot] = score;
    }
    const float new_top = block_top > top ? block_top : top;
    if (new_top == none) continue;
    const float factor = cpu::exp_one(top - new_top);
    for (float& value : p) value = cpu::exp_one(value - new_top);
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
      float value = sums[d] * factor;
      for (int32_t slot = 0; slot < kKeyBlock; slot += 2) {
        float v[2] = {0.0f, 0.0f};
        for (int32_t i = 0; i < 2; ++i) {
          const int32_t key = begin + slot + i;
          if (key >= 0 && key < total) v[i] = input.values[static_cast<size_t>(key)][d];
        }
        value = chain_pair(value, p + slot, v, pairs ? mistakes.even_first : true);
      }
      sums[d] = value;
    }
  }
  const float inverse = 1.0f / sum;
  for (size_t d = 0; d < dims; ++d) out[d] = sums[d] * inverse + 0.0f;
  return top + cpu::log_one(sum);
}

}  // namespace gavel::test
