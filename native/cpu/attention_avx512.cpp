// attention_portable.h with 16 lanes: six queries share the loads of a block. Only the order of operations per query
// counts. Only the forms with bf16 hold bf16 instructions.
#include "cpu/attention_portable.h"

#if defined(__x86_64__)

namespace gavel::cpu {
namespace {

template <bool kBf16>
GAVEL_TARGET_AVX512_BF16 GAVEL_INLINE __m512 mac_lanes(__m512 sum, __m512i left, __m512i right) {
  if constexpr (kBf16) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(left), reinterpret_cast<__m512bh>(right));
  } else {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(left), _mm512_castsi512_ps(right), sum);
  }
}

GAVEL_TARGET_AVX512_BF16 GAVEL_INLINE __m512i broadcast_word(const void* base, int32_t index) {
  int32_t word;
  std::memcpy(&word, static_cast<const uint8_t*>(base) + 4 * int64_t{index}, 4);
  return _mm512_set1_epi32(word);
}

// scores[query][key] for the first 16 * kVectors keys, scaled, before the mask.
template <bool kBf16, int kQueries, int kVectors>
GAVEL_TARGET_AVX512_BF16 void score_tile(const BlockVisit& step, float (*scores)[kKeyBlock]) {
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
GAVEL_TARGET_AVX512_BF16 void value_tile(const BlockVisit& step, const float (*p)[kKeyBlock], const float* factor,
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
  GAVEL_TARGET_AVX512_BF16 GAVEL_INLINE static __m512 combine(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
};
struct SumOf {
  GAVEL_TARGET_AVX512_BF16 GAVEL_INLINE static __m512 combine(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
};
template <class Op>
GAVEL_TARGET_AVX512_BF16 GAVEL_INLINE float reduce_lanes(__m512 x0, __m512 x1, __m512 x2, __m512 x3) {
  __m512 x = Op::combine(Op::combine(x0, x1), Op::combine(x2, x3));
  x = Op::combine(x, _mm512_shuffle_f32x4(x, x, 0x4e));
  x = Op::combine(x, _mm512_shuffle_f32x4(x, x, 0xb1));
  x = Op::combine(x, _mm512_permute_ps(x, 0x4e));
  x = Op::combine(x, _mm512_permute_ps(x, 0xb1));
  return _mm512_cvtss_f32(x);
}

GAVEL_TARGET_AVX512_BF16 GAVEL_INLINE __m256i rounded(__m512 x) {
  return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x));
}

// How operands lie: widened is bf16 as floats, the odd element of a pair first.
enum class Form { f32, bf16, widened };

// Scores become p (bf16 pairs in the low half of the row for bf16); running max and sum move on; factor[] rescales out.
// Only the first kVectors * 16 keys were computed: the rest would be exact zeros in the trees.
template <Form kForm, int kVectors>
GAVEL_TARGET_AVX512_BF16 void softmax_rows(const BlockVisit& step, float (*scores)[kKeyBlock], float* factor) {
  const __m512 none = _mm512_set1_ps(kNoScore);
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
    const __m512 shift = _mm512_set1_ps(top[i] == kNoScore ? 0.0f : top[i]);
    __m512 p[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int v = 0; v < kVectors; ++v) p[v] = exp_lanes(_mm512_sub_ps(_mm512_load_ps(scores[i] + 16 * v), shift));
    float* state = step.state[i];
    state[0] = top[i];
    state[1] = __builtin_fmaf(state[1], factor[i], reduce_lanes<SumOf>(p[0], p[1], p[2], p[3]));
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (kForm == Form::bf16) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(scores[i] + 8 * v), rounded(p[v]));
      } else if constexpr (kForm == Form::widened) {
        const __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded(p[v])), 16);
        _mm512_store_ps(scores[i] + 16 * v, _mm512_permute_ps(_mm512_castsi512_ps(wide), 0xb1));
      } else {
        _mm512_store_ps(scores[i] + 16 * v, p[v]);
      }
    }
  }
}

template <Form kForm, int kQueries, int kVectors>
void weigh_keys(const BlockVisit& step, float (*scores)[kKeyBlock], float* factor) {
  score_tile<kForm == Form::bf16, kQueries, kVectors>(step, scores);
  softmax_rows<kForm, kVectors>(step, scores, factor);
}

template <Form kForm, int kQueries>
void visit_queries(const BlockVisit& step) {
  alignas(64) float scores[kQueries][kKeyBlock];
  alignas(64) float factor[16];
  int32_t visible = 0;
  for (int i = 0; i < kQueries; ++i) visible = std::max(visible, step.visible[i]);
  // Lanes that no query sees are masked whatever they hold, so they need not be computed.
  switch ((visible + 15) / 16) {
    case 1:
      weigh_keys<kForm, kQueries, 1>(step, scores, factor);
      break;
    case 2:
      weigh_keys<kForm, kQueries, 2>(step, scores, factor);
      break;
    case 3:
      weigh_keys<kForm, kQueries, 3>(step, scores, factor);
      break;
    default:
      weigh_keys<kForm, kQueries, 4>(step, scores, factor);
  }
  const int32_t pairs = (visible + 1) / 2;
  const int32_t words = kForm == Form::bf16 ? pairs : kForm == Form::widened ? 2 * pairs : visible;
  int32_t vectors = step.head_dim / 16;
  for (int32_t column = 0, parts = (vectors + 3) / 4; parts > 0; --parts) {
    const int32_t width = (vectors + parts - 1) / parts;
    switch (width) {
      case 1:
        value_tile<kForm == Form::bf16, kQueries, 1>(step, scores, factor, words, column);
        break;
      case 2:
        value_tile<kForm == Form::bf16, kQueries, 2>(step, scores, factor, words, column);
        break;
      case 3:
        value_tile<kForm == Form::bf16, kQueries, 3>(step, scores, factor, words, column);
        break;
      default:
        value_tile<kForm == Form::bf16, kQueries, 4>(step, scores, factor, words, column);
    }
    column += 16 * width;
    vectors -= width;
  }
}

template <Form kForm>
void visit_form(const BlockVisit& step) {
  static_assert(kVisitQueries == 6);
  switch (step.count) {
    case 1:
      return visit_queries<kForm, 1>(step);
    case 2:
      return visit_queries<kForm, 2>(step);
    case 3:
      return visit_queries<kForm, 3>(step);
    case 4:
      return visit_queries<kForm, 4>(step);
    case 5:
      return visit_queries<kForm, 5>(step);
    default:
      return visit_queries<kForm, 6>(step);
  }
}

template <bool kBf16>
void visit_avx512(const BlockVisit& step) {
  if constexpr (kBf16) {
    if (step.widened) return visit_form<Form::widened>(step);
    return visit_form<Form::bf16>(step);
  } else {
    return visit_form<Form::f32>(step);
  }
}

// 16 pairs as floats: the odd elements and the even ones.
GAVEL_TARGET_AVX512_BF16 GAVEL_INLINE __m512 odd_lanes(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u))));
}
GAVEL_TARGET_AVX512_BF16 GAVEL_INLINE __m512 even_lanes(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
}

void widen_query(const bf16_t* query, int32_t head_dim, float* out) {
  for (int32_t d = 0; d < head_dim; ++d) out[d] = bf16_to_float(query[d ^ 1]);
}

// Both tiles are rows of pairs, `width` to the row: K 64 keys, V D dimensions.
GAVEL_TARGET_AVX512_BF16 void widen_rows(const bf16_t* tile, int32_t rows, int32_t width, float* out) {
  for (int32_t row = 0; row < rows; ++row, tile += 2 * width, out += 2 * width) {
    for (int32_t i = 0; i < width; i += 16) {
      const __m512i pairs = _mm512_loadu_si512(tile + 2 * i);
      _mm512_storeu_ps(out + i, odd_lanes(pairs));
      _mm512_storeu_ps(out + width + i, even_lanes(pairs));
    }
  }
}

void widen_block(const bf16_t* tiles, int32_t head_dim, float* out) {
  widen_rows(tiles, head_dim / 2, kKeyBlock, out);
  widen_rows(tiles + kKeyBlock * head_dim, kKeyBlock / 2, head_dim, out + kKeyBlock * head_dim);
}

template <bool kBf16>
GAVEL_TARGET_AVX512_BF16 float finish_avx512(const float* state, int32_t head_dim, void* out) {
  return finish_portable<kBf16>(state, head_dim, out);
}

}  // namespace

AttentionKernels attention_kernels_avx512(DType dtype) {
  if (dtype == DType::f32) return {visit_avx512<false>, finish_avx512<false>};
  static const bool slow_pairs = __builtin_cpu_is("intel");
  if (slow_pairs) return {visit_avx512<true>, finish_avx512<true>, widen_query, widen_block};
  return {visit_avx512<true>, finish_avx512<true>};
}

}  // namespace gavel::cpu

#endif
