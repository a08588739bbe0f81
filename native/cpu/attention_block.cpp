#include "cpu/attention_block.h"

#include <algorithm>
#include <cstring>

#include "cpu/vector_math.h"

// The arithmetic of one query, in every path:
//   score[key] = (chain over d ascending of fma; bf16: pairs of d, the odd one first) * scale, -inf where not visible
//   max' = max(max, scores); while that is -inf, 0 is subtracted instead: (-inf) - (-inf) would be NaN, and p stays +0
//   p = exp(score - max'), factor = exp(max - max'), sum = fma(sum, factor, tree(p)), tree as in lane_tree below
//   out[d] = chain over keys ascending of fma from out[d] * factor (bf16: p rounded, pairs of keys, the odd one first)
// A key that is not visible adds p * v = +-0, so leaving it out changes at most the sign of a zero, which finish() removes.

namespace gavel::cpu {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

// ---------------------------------------------------------------------------------------------------------- portable

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
      for (int32_t key = 0; key < kKeyBlock; ++key) score[key] = mac<kBf16>(score[key], word, keys[d * kKeyBlock + key]);
    }
    const int32_t visible = step.visible[i];
    for (int32_t key = 0; key < kKeyBlock; ++key) score[key] = key < visible ? score[key] * step.scale : kNone;
    float* state = step.state[i];
    const float top = std::max(state[0], lane_tree(score, [](float a, float b) { return a > b ? a : b; }));
    const float shift = top == kNone ? 0.0f : top;
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
  return empty ? kNone : state[0] + log_one(state[1]);
}

template <bool kBf16>
void visit_generic(const BlockVisit& step) {
  visit_portable<kBf16>(step);
}
template <bool kBf16>
float finish_generic(const float* state, int32_t head_dim, void* out) {
  return finish_portable<kBf16>(state, head_dim, out);
}

#if defined(__x86_64__)

// The same code where the compiler may use FMA instructions: without them every fma is a call into libm.
template <bool kBf16>
__attribute__((target("avx2,fma"))) void visit_fma(const BlockVisit& step) {
  visit_portable<kBf16>(step);
}
template <bool kBf16>
__attribute__((target("avx2,fma"))) float finish_fma(const float* state, int32_t head_dim, void* out) {
  return finish_portable<kBf16>(state, head_dim, out);
}

// ----------------------------------------------------------------------------------------------------------- AVX-512

template <bool kBf16>
GAVEL_TARGET_AVX512 GAVEL_INLINE __m512 mac_lanes(__m512 sum, __m512i left, __m512i right) {
  if constexpr (kBf16) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(left), reinterpret_cast<__m512bh>(right));
  } else {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(left), _mm512_castsi512_ps(right), sum);
  }
}

GAVEL_TARGET_AVX512 GAVEL_INLINE __m512i broadcast_word(const void* base, int32_t index) {
  int32_t word;
  std::memcpy(&word, static_cast<const uint8_t*>(base) + 4 * int64_t{index}, 4);
  return _mm512_set1_epi32(word);
}

// scores[query][key] for the first 16 * kVectors keys, scaled, before the mask.
template <bool kBf16, int kQueries, int kVectors>
GAVEL_TARGET_AVX512 void score_tile(const BlockVisit& step, float (*scores)[kKeyBlock]) {
  const int32_t steps = kBf16 ? step.head_dim / 2 : step.head_dim;
  const auto* keys = static_cast<const uint32_t*>(step.keys);
  const void* query[kQueries];
  for (int i = 0; i < kQueries; ++i) query[i] = step.query[i];
  __m512 sum[kQueries][kVectors];
  for (int i = 0; i < kQueries; ++i) {
    for (int v = 0; v < kVectors; ++v) sum[i][v] = _mm512_setzero_ps();
  }
  for (int32_t d = 0; d < steps; ++d, keys += kKeyBlock) {
    __m512i key[kVectors];
    for (int v = 0; v < kVectors; ++v) key[v] = _mm512_loadu_si512(keys + 16 * v);
    for (int i = 0; i < kQueries; ++i) {
      const __m512i word = broadcast_word(query[i], d);
      for (int v = 0; v < kVectors; ++v) sum[i][v] = mac_lanes<kBf16>(sum[i][v], word, key[v]);
    }
  }
  const __m512 scale = _mm512_set1_ps(step.scale);
  for (int i = 0; i < kQueries; ++i) {
    for (int v = 0; v < kVectors; ++v) _mm512_store_ps(scores[i] + 16 * v, _mm512_mul_ps(sum[i][v], scale));
  }
}

// out[query][d] = out * factor + p * V for kVectors * 16 dimensions from `column` on.
template <bool kBf16, int kQueries, int kVectors>
GAVEL_TARGET_AVX512 void value_tile(const BlockVisit& step, const float (*p)[kKeyBlock], const float* factor,
                                    int32_t words, int32_t column) {
  const auto* values = static_cast<const uint32_t*>(step.values) + column;
  __m512 sum[kQueries][kVectors];
  for (int i = 0; i < kQueries; ++i) {
    const float* out = step.state[i] + kStateHeader + column;
    const __m512 scale = _mm512_set1_ps(factor[i]);
    for (int v = 0; v < kVectors; ++v) sum[i][v] = _mm512_mul_ps(_mm512_loadu_ps(out + 16 * v), scale);
  }
  for (int32_t word = 0; word < words; ++word, values += step.head_dim) {
    __m512i value[kVectors];
    for (int v = 0; v < kVectors; ++v) value[v] = _mm512_loadu_si512(values + 16 * v);
    for (int i = 0; i < kQueries; ++i) {
      const __m512i weight = broadcast_word(p[i], word);
      for (int v = 0; v < kVectors; ++v) sum[i][v] = mac_lanes<kBf16>(sum[i][v], weight, value[v]);
    }
  }
  for (int i = 0; i < kQueries; ++i) {
    float* out = step.state[i] + kStateHeader + column;
    for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(out + 16 * v, sum[i][v]);
  }
}

// The trees of lane_tree: 64 -> 16 lanes, then halves.
struct MaxOf {
  GAVEL_TARGET_AVX512 GAVEL_INLINE static __m512 combine(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
};
struct SumOf {
  GAVEL_TARGET_AVX512 GAVEL_INLINE static __m512 combine(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
};
template <class Op>
GAVEL_TARGET_AVX512 GAVEL_INLINE float reduce_lanes(__m512 x0, __m512 x1, __m512 x2, __m512 x3) {
  __m512 x = Op::combine(Op::combine(x0, x1), Op::combine(x2, x3));
  x = Op::combine(x, _mm512_shuffle_f32x4(x, x, 0x4e));
  x = Op::combine(x, _mm512_shuffle_f32x4(x, x, 0xb1));
  x = Op::combine(x, _mm512_permute_ps(x, 0x4e));
  x = Op::combine(x, _mm512_permute_ps(x, 0xb1));
  return _mm512_cvtss_f32(x);
}

// Scores become p (bf16 pairs in the low half of the row for bf16); running max and sum move on; factor[] rescales out.
// Only the first kVectors * 16 keys were computed: the rest would be exact zeros in the trees.
template <bool kBf16, int kVectors>
GAVEL_TARGET_AVX512 void softmax_rows(const BlockVisit& step, float (*scores)[kKeyBlock], float* factor) {
  const __m512 none = _mm512_set1_ps(kNone);
  alignas(64) float top[16] = {}, old_top[16] = {};
  for (int32_t i = 0; i < step.count; ++i) {
    __m512 s[4] = {none, none, none, none};
    for (int v = 0; v < kVectors; ++v) {
      const int32_t lanes = std::clamp(step.visible[i] - 16 * v, 0, 16);
      const auto mask = static_cast<__mmask16>((1u << lanes) - 1u);
      s[v] = _mm512_mask_blend_ps(mask, none, _mm512_load_ps(scores[i] + 16 * v));
      _mm512_store_ps(scores[i] + 16 * v, s[v]);
    }
    old_top[i] = step.state[i][0];
    top[i] = std::max(old_top[i], reduce_lanes<MaxOf>(s[0], s[1], s[2], s[3]));
  }
  const __m512 tops = _mm512_load_ps(top);
  const __m512 shifts = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(tops, none, _CMP_NEQ_UQ), tops);
  _mm512_store_ps(factor, exp_lanes(_mm512_sub_ps(_mm512_load_ps(old_top), shifts)));
  for (int32_t i = 0; i < step.count; ++i) {
    const __m512 shift = _mm512_set1_ps(top[i] == kNone ? 0.0f : top[i]);
    __m512 p[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int v = 0; v < kVectors; ++v) p[v] = exp_lanes(_mm512_sub_ps(_mm512_load_ps(scores[i] + 16 * v), shift));
    float* state = step.state[i];
    state[0] = top[i];
    state[1] = __builtin_fmaf(state[1], factor[i], reduce_lanes<SumOf>(p[0], p[1], p[2], p[3]));
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (kBf16) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(scores[i] + 8 * v),
                           reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(p[v])));
      } else {
        _mm512_store_ps(scores[i] + 16 * v, p[v]);
      }
    }
  }
}

template <bool kBf16, int kQueries, int kVectors>
void weigh_keys(const BlockVisit& step, float (*scores)[kKeyBlock], float* factor) {
  score_tile<kBf16, kQueries, kVectors>(step, scores);
  softmax_rows<kBf16, kVectors>(step, scores, factor);
}

template <bool kBf16, int kQueries>
GAVEL_TARGET_AVX512 void visit_queries(const BlockVisit& step) {
  alignas(64) float scores[kQueries][kKeyBlock];
  alignas(64) float factor[16];
  int32_t visible = 0;
  for (int i = 0; i < kQueries; ++i) visible = std::max(visible, step.visible[i]);
  // Lanes that no query sees are masked whatever they hold, so they need not be computed.
  switch ((visible + 15) / 16) {
    case 1:
      weigh_keys<kBf16, kQueries, 1>(step, scores, factor);
      break;
    case 2:
      weigh_keys<kBf16, kQueries, 2>(step, scores, factor);
      break;
    case 3:
      weigh_keys<kBf16, kQueries, 3>(step, scores, factor);
      break;
    default:
      weigh_keys<kBf16, kQueries, 4>(step, scores, factor);
  }
  const int32_t words = kBf16 ? (visible + 1) / 2 : visible;
  int32_t vectors = step.head_dim / 16;
  for (int32_t column = 0, parts = (vectors + 3) / 4; parts > 0; --parts) {
    const int32_t width = (vectors + parts - 1) / parts;
    switch (width) {
      case 1:
        value_tile<kBf16, kQueries, 1>(step, scores, factor, words, column);
        break;
      case 2:
        value_tile<kBf16, kQueries, 2>(step, scores, factor, words, column);
        break;
      case 3:
        value_tile<kBf16, kQueries, 3>(step, scores, factor, words, column);
        break;
      default:
        value_tile<kBf16, kQueries, 4>(step, scores, factor, words, column);
    }
    column += 16 * width;
    vectors -= width;
  }
}

template <bool kBf16>
void visit_avx512(const BlockVisit& step) {
  static_assert(kVisitQueries == 6);
  switch (step.count) {
    case 1:
      return visit_queries<kBf16, 1>(step);
    case 2:
      return visit_queries<kBf16, 2>(step);
    case 3:
      return visit_queries<kBf16, 3>(step);
    case 4:
      return visit_queries<kBf16, 4>(step);
    case 5:
      return visit_queries<kBf16, 5>(step);
    default:
      return visit_queries<kBf16, 6>(step);
  }
}

template <bool kBf16>
GAVEL_TARGET_AVX512 float finish_avx512(const float* state, int32_t head_dim, void* out) {
  return finish_portable<kBf16>(state, head_dim, out);
}

#endif

}  // namespace

AttentionKernels attention_kernels([[maybe_unused]] Isa isa, DType dtype) {
  const bool bf16 = dtype == DType::bf16;
#if defined(__x86_64__)
  if (isa == Isa::avx512_bf16) {
    return bf16 ? AttentionKernels{visit_avx512<true>, finish_avx512<true>}
                : AttentionKernels{visit_avx512<false>, finish_avx512<false>};
  }
  static const bool has_fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (has_fma) {
    return bf16 ? AttentionKernels{visit_fma<true>, finish_fma<true>}
                : AttentionKernels{visit_fma<false>, finish_fma<false>};
  }
#endif
  return bf16 ? AttentionKernels{visit_generic<true>, finish_generic<true>}
              : AttentionKernels{visit_generic<false>, finish_generic<false>};
}

}  // namespace gavel::cpu
