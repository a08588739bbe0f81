// Row functions of the head: scale, sums, merge and gradient of 256 logits. 16 lanes, one accumulator each, one tree;
// the portable and the AVX-512 form do the same operations in the same order.
#include "cpu/head_tile.h"

#include <cstring>

#include "cpu/vector_math.h"

namespace gavel::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLowestDifference = -104.0f;  // its exp is +0 like that of -inf, and its product with 0 is no NaN
constexpr int kWidth = 16;

float tree_sum(const float* lanes) {
  float t[kWidth];
  std::copy(lanes, lanes + kWidth, t);
  for (int half = kWidth / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) t[i] += t[i + half];
  }
  return t[0];
}

GAVEL_INLINE TileSums sums_body(float* z, int64_t columns, float inverse_temperature, bool with_moment) {
  float max = -kInfinity;
  for (int i = 0; i < kVocabularyTile; ++i) {
    z[i] = i < columns ? z[i] * inverse_temperature : -kInfinity;
    max = z[i] > max ? z[i] : max;
  }
  // A tile of -inf alone sums to 0 instead of NaN.
  const float shift = max == -kInfinity ? 0.0f : max;
  float sum[kWidth] = {}, moment[kWidth] = {};
  for (int i = 0; i < kVocabularyTile; ++i) {
    float d = z[i] - shift;
    d = d < kLowestDifference ? kLowestDifference : d;
    const float e = exp_one(d);
    sum[i % kWidth] += e;
    if (with_moment) moment[i % kWidth] = __builtin_fmaf(e, d, moment[i % kWidth]);
  }
  return {max, tree_sum(sum), tree_sum(moment)};
}

GAVEL_INLINE HeadTotals merge_body(const float* tile_sums, const float* moments, int64_t tiles) {
  float max = -kInfinity;
  for (int64_t t = 0; t < tiles; ++t) max = tile_sums[2 * t] > max ? tile_sums[2 * t] : max;
  float sum = 0, moment = 0;
  for (int64_t t = 0; t < tiles; ++t) {
    if (tile_sums[2 * t] == -kInfinity) {
      sum += tile_sums[2 * t + 1];  // 0 of an empty tile; NaN stays visible
      continue;
    }
    float d = tile_sums[2 * t] - max;
    d = d < kLowestDifference ? kLowestDifference : d;
    const float scale = exp_one(d);
    sum = __builtin_fmaf(tile_sums[2 * t + 1], scale, sum);
    if (moments != nullptr) {
      moment = __builtin_fmaf(__builtin_fmaf(tile_sums[2 * t + 1], d, moments[t]), scale, moment);
    }
  }
  const float log_sum = log_one(sum);
  return {max + log_sum, moments != nullptr ? log_sum - moment / sum : 0.0f};
}

GAVEL_INLINE void gradient_body(float* z, int64_t columns, int64_t token, const HeadGradient& g) {
  for (int i = 0; i < kVocabularyTile; ++i) {
    float d = z[i] * g.scale - g.log_normalizer;
    d = d < kLowestDifference ? kLowestDifference : d;
    // -grad_logprob - grad_entropy (log p + H), times p.
    const float weight = __builtin_fmaf(-g.grad_entropy, d + g.entropy, -g.grad_logprob);
    float value = exp_one(d) * weight;
    if (i == token) value += g.grad_logprob;
    z[i] = i < columns ? value * g.inverse_temperature : 0.0f;
  }
}

TileSums sums_plain(float* z, int64_t columns, float inverse_temperature, bool with_moment) {
  return sums_body(z, columns, inverse_temperature, with_moment);
}
HeadTotals merge_plain(const float* tile_sums, const float* moments, int64_t tiles) {
  return merge_body(tile_sums, moments, tiles);
}
void gradient_plain(float* z, int64_t columns, int64_t token, const HeadGradient& g) {
  gradient_body(z, columns, token, g);
}

#if defined(__x86_64__)

// The same code where fma is one instruction.
#define GAVEL_TARGET_FMA __attribute__((target("avx2,fma")))
GAVEL_TARGET_FMA TileSums sums_fma(float* z, int64_t columns, float inverse_temperature, bool with_moment) {
  return sums_body(z, columns, inverse_temperature, with_moment);
}
GAVEL_TARGET_FMA HeadTotals merge_fma(const float* tile_sums, const float* moments, int64_t tiles) {
  return merge_body(tile_sums, moments, tiles);
}
GAVEL_TARGET_FMA void gradient_fma(float* z, int64_t columns, int64_t token, const HeadGradient& g) {
  gradient_body(z, columns, token, g);
}

bool has_fma() {
  static const bool result = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return result;
}

GAVEL_TARGET_AVX512 GAVEL_INLINE __mmask16 valid_lanes(int64_t columns, int first) {
  const int64_t count = std::clamp<int64_t>(columns - first, 0, 16);
  return static_cast<__mmask16>((1u << count) - 1);
}

GAVEL_TARGET_AVX512 TileSums sums_avx512(float* z, int64_t columns, float inverse_temperature, bool with_moment) {
  const __m512 scale = _mm512_set1_ps(inverse_temperature), lowest = _mm512_set1_ps(-kInfinity);
  __m512 max = lowest;
  for (int i = 0; i < kVocabularyTile; i += 16) {
    const __m512 value = _mm512_mask_mul_ps(lowest, valid_lanes(columns, i), _mm512_loadu_ps(z + i), scale);
    _mm512_storeu_ps(z + i, value);
    max = _mm512_max_ps(value, max);  // a NaN gives the second operand, as in the portable form
  }
  const float row_max = _mm512_reduce_max_ps(max);
  const __m512 shift = _mm512_set1_ps(row_max == -kInfinity ? 0.0f : row_max);
  const __m512 floor = _mm512_set1_ps(kLowestDifference);
  __m512 sum = _mm512_setzero_ps(), moment = _mm512_setzero_ps();
  for (int i = 0; i < kVocabularyTile; i += 16) {
    // max with the floor first: a NaN difference is the second operand and stays.
    const __m512 d = _mm512_max_ps(floor, _mm512_sub_ps(_mm512_loadu_ps(z + i), shift));
    const __m512 e = exp_lanes(d);
    sum = _mm512_add_ps(sum, e);
    if (with_moment) moment = _mm512_fmadd_ps(e, d, moment);
  }
  alignas(64) float lanes[2][kWidth];
  _mm512_store_ps(lanes[0], sum);
  _mm512_store_ps(lanes[1], moment);
  return {row_max, tree_sum(lanes[0]), tree_sum(lanes[1])};
}

GAVEL_TARGET_AVX512 void gradient_avx512(float* z, int64_t columns, int64_t token, const HeadGradient& g) {
  const __m512 inverse_temperature = _mm512_set1_ps(g.inverse_temperature), scale = _mm512_set1_ps(g.scale);
  const __m512 log_z = _mm512_set1_ps(g.log_normalizer);
  const __m512 entropy = _mm512_set1_ps(g.entropy), floor = _mm512_set1_ps(kLowestDifference);
  const __m512 grad_logprob = _mm512_set1_ps(g.grad_logprob), minus_entropy = _mm512_set1_ps(-g.grad_entropy);
  const __m512 minus_logprob = _mm512_set1_ps(-g.grad_logprob);
  for (int i = 0; i < kVocabularyTile; i += 16) {
    __m512 d = _mm512_sub_ps(_mm512_mul_ps(_mm512_loadu_ps(z + i), scale), log_z);
    d = _mm512_max_ps(floor, d);
    const __m512 weight = _mm512_fmadd_ps(minus_entropy, _mm512_add_ps(d, entropy), minus_logprob);
    __m512 value = _mm512_mul_ps(exp_lanes(d), weight);
    if (token >= i && token < i + 16) {
      value = _mm512_mask_add_ps(value, static_cast<__mmask16>(1u << (token - i)), value, grad_logprob);
    }
    _mm512_storeu_ps(z + i, _mm512_maskz_mul_ps(valid_lanes(columns, i), value, inverse_temperature));
  }
}

#endif

}  // namespace

void head_tile_logits(const GemmPath& path, const HeadShape& shape, const void* weight, const HeadRows& rows,
                      int64_t group_begin, int64_t group_end, int64_t tile_index, float* logits) {
  const int64_t panels = divide_up(shape.columns(tile_index), kLanes);
  const int64_t first = rows.groups.begin(group_begin), at_once = path.panels(rows.groups);
  const TileScope scope(path, rows.count);
  const uint32_t* const data =
      static_cast<const uint32_t*>(weight) + tile_index * (kVocabularyTile / kPanel) * shape.panel_dwords;
  Tile tile;
  tile.steps = rows.steps;
  tile.a_half = GemmPath::kUnit * rows.left_steps;
  tile.b_panel = shape.panel_dwords;
  tile.c_row = kVocabularyTile;
  for (int64_t panel = 0; panel < panels; panel += at_once) {
    tile.b = data + panel * shape.panel_dwords;
    tile.panels = static_cast<int>(std::min(at_once, panels - panel));
    for (int64_t group = group_begin; group < group_end; ++group) {
      const int64_t row = rows.groups.begin(group);
      tile.rows = rows.groups.size(group);
      tile.fetch = group == group_begin;
      tile.a = rows.packed + row * rows.left_steps;
      tile.c = logits + (row - first) * kVocabularyTile + panel * kLanes;
      run_tile(path, tile);
    }
  }
}

TileSums head_tile_sums(Isa isa, float* logits, int64_t columns, float inverse_temperature, bool with_moment) {
#if defined(__x86_64__)
  if (has_avx512(isa)) return sums_avx512(logits, columns, inverse_temperature, with_moment);
  if (isa == Isa::avx2) return sums_fma(logits, columns, inverse_temperature, with_moment);
#endif
  static_cast<void>(isa);
  return sums_plain(logits, columns, inverse_temperature, with_moment);
}

HeadTotals head_merge(const float* tile_sums, const float* moments, int64_t tiles) {
#if defined(__x86_64__)
  if (has_fma()) return merge_fma(tile_sums, moments, tiles);
#endif
  return merge_plain(tile_sums, moments, tiles);
}

void head_tile_gradient(Isa isa, float* logits, int64_t columns, int64_t token, const HeadGradient& gradient) {
#if defined(__x86_64__)
  if (has_avx512(isa)) return gradient_avx512(logits, columns, token, gradient);
  if (isa == Isa::avx2) return gradient_fma(logits, columns, token, gradient);
#endif
  static_cast<void>(isa);
  gradient_plain(logits, columns, token, gradient);
}

void head_gather(Context& context, const GemmPath& path, const HeadLogprob& p, const HeadRows& rows, int64_t begin,
                 void* gathered, uint32_t* packed) {
  const int64_t hidden = p.hidden.cols();
  const size_t row_bytes = static_cast<size_t>(hidden) * dtype_size(path.dtype);
  context.pool->parallel_for(rows.groups.count, [&](int64_t group, int) {
    const void* sources[2 * GemmPath::kUnit];
    const int64_t first = rows.row(group);
    const int size = rows.size(group);
    for (int i = 0; i < size; ++i) {
      const int64_t target = begin + first + i;
      sources[i] = static_cast<const uint8_t*>(p.hidden.data) + static_cast<size_t>(p.rows[target]) * row_bytes;
      if (gathered != nullptr) {
        std::memcpy(static_cast<uint8_t*>(gathered) + static_cast<size_t>(first + i) * row_bytes, sources[i],
                    row_bytes);
      }
    }
    pack_rows(path, sources, size, hidden, packed + first * rows.left_steps);
  });
}

}  // namespace gavel::cpu
