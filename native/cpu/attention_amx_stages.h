// The three stages of a visit of up to 16 queries to a block of keys: scores, their softmax, the product with V. A tile
// product comes in halves, which take up one another's tiles, so that vector code can run between them.
#pragma once
#include <algorithm>
#include <limits>

#include "cpu/attention_amx_lanes.h"
#include "ops/attention.h"

#if defined(__x86_64__)

namespace gavel::cpu {

inline constexpr int32_t kRows = 16;   // of a tile
inline constexpr int32_t kDepth = 32;  // bf16 of a tile's row
inline constexpr float kNone = -std::numeric_limits<float>::infinity();

// tmm0-3: accumulators of up to 16 queries, 4: their left operand, 6: the right one; 5 and 7 the same for 16 of depth.
GAVEL_TARGET_AMX inline __attribute__((noinline)) void configure_rows(int rows) {
  TileConfig config;
  for (int i = 0; i < 5; ++i) config.set(i, rows, 64);
  config.set(5, rows, 32);
  config.set(6, 16, 64);
  config.set(7, 8, 64);
  load_tile_config(config);
}

// One left tile times kTiles right ones that lie side by side.
#define GAVEL_MULTIPLY(LEFT, RIGHT, a, a_bytes, b, b_bytes)          \
  do {                                                               \
    _tile_loadd(LEFT, a, a_bytes);                                   \
    _tile_loadd(RIGHT, b, b_bytes);                                  \
    _tile_dpbf16ps(0, LEFT, RIGHT);                                  \
    if constexpr (kTiles > 1) _tile_loadd(RIGHT, (b) + 16, b_bytes); \
    if constexpr (kTiles > 1) _tile_dpbf16ps(1, LEFT, RIGHT);        \
    if constexpr (kTiles > 2) _tile_loadd(RIGHT, (b) + 32, b_bytes); \
    if constexpr (kTiles > 2) _tile_dpbf16ps(2, LEFT, RIGHT);        \
    if constexpr (kTiles > 3) _tile_loadd(RIGHT, (b) + 48, b_bytes); \
    if constexpr (kTiles > 3) _tile_dpbf16ps(3, LEFT, RIGHT);        \
  } while (false)

// scores[query][64] for 16 * kTiles keys: raw products. The second half takes up the tiles of the first.
template <int kTiles>
GAVEL_TARGET_AMX void score_half(bool second, const bf16_t* queries, int32_t head_dim, const uint32_t* keys,
                                 float* scores) {
  constexpr int64_t kKeyBytes = kKeyBlock * 4;
  const int32_t middle = head_dim / kDepth / 2 * kDepth, end = second ? head_dim : middle;
  if (!second) {
    _tile_zero(0);
    if constexpr (kTiles > 1) _tile_zero(1);
    if constexpr (kTiles > 2) _tile_zero(2);
    if constexpr (kTiles > 3) _tile_zero(3);
  }
  int32_t d = second ? middle : 0;
  keys += d / 2 * kKeyBlock;
  memory_barrier();
  for (; d + kDepth <= end; d += kDepth, keys += kDepth / 2 * kKeyBlock) {
    GAVEL_MULTIPLY(4, 6, queries + d, head_dim * 2, keys, kKeyBytes);
  }
  if (!second) return;
  if (d < end) GAVEL_MULTIPLY(5, 7, queries + d, head_dim * 2, keys, kKeyBytes);
  _tile_stored(0, scores, kKeyBytes);
  if constexpr (kTiles > 1) _tile_stored(1, scores + 16, kKeyBytes);
  if constexpr (kTiles > 2) _tile_stored(2, scores + 32, kKeyBytes);
  if constexpr (kTiles > 3) _tile_stored(3, scores + 48, kKeyBytes);
  memory_barrier();
}

// out[query][16 * kTiles dimensions] += p * V: keys [32 * depth, 32 * depth + 32). The first loads the sums, the last
// stores them.
template <int kTiles>
GAVEL_TARGET_AMX GAVEL_INLINE void add_values(const bf16_t* p, bool first, bool last, const uint32_t* values,
                                              int32_t head_dim, float* out) {
  const int64_t bytes = int64_t{head_dim} * 4;
  if (first) {
    _tile_loadd(0, out, bytes);
    if constexpr (kTiles > 1) _tile_loadd(1, out + 16, bytes);
    if constexpr (kTiles > 2) _tile_loadd(2, out + 32, bytes);
    if constexpr (kTiles > 3) _tile_loadd(3, out + 48, bytes);
  }
  GAVEL_MULTIPLY(4, 6, p, kKeyBlock * 2, values, bytes);
  if (last) {
    _tile_stored(0, out, bytes);
    if constexpr (kTiles > 1) _tile_stored(1, out + 16, bytes);
    if constexpr (kTiles > 2) _tile_stored(2, out + 32, bytes);
    if constexpr (kTiles > 3) _tile_stored(3, out + 48, bytes);
  }
}

// One half of the products of 64 columns by 32 keys.
GAVEL_TARGET_AMX inline __attribute__((noinline)) void add_half(bool second, const bf16_t* p, int32_t depths,
                                                                const uint32_t* values, int32_t head_dim, float* out) {
  const int32_t products = (head_dim + 63) / 64 * depths;
  memory_barrier();
  for (int32_t i = second ? products / 2 : 0; i < (second ? products : products / 2); ++i) {
    const int32_t column = i / depths * 64, depth = i % depths;
    const bool first = depth == 0, last = depth == depths - 1;
    const bf16_t* left = p + kDepth * depth;
    const uint32_t* right = values + kDepth / 2 * depth * head_dim + column;
    switch (std::min(4, (head_dim - column) / 16)) {
      case 1:
        add_values<1>(left, first, last, right, head_dim, out + column);
        break;
      case 2:
        add_values<2>(left, first, last, right, head_dim, out + column);
        break;
      case 3:
        add_values<3>(left, first, last, right, head_dim, out + column);
        break;
      default:
        add_values<4>(left, first, last, right, head_dim, out + column);
    }
  }
  memory_barrier();
}

// Running softmax of consecutive queries.
struct States {
  float *top, *sum, *out;  // top in powers of two; out[query][head_dim], not yet divided by sum
};

// Up to 16 consecutive queries that visit a block.
struct Visit {
  int32_t rows = 0, first = 0;
  int32_t tiles = 4;    // of 16 keys: those that some query sees
  bool hidden = false;  // some of their keys are hidden from some query
  const uint32_t *keys = nullptr, *values = nullptr;
};

// Scores of the first 16 * kTiles keys become p, running top and sum move on; factors[16] are those of out. kHidden:
// some of these keys are hidden from some query. quarter(0..3) is called between rows.
template <int kTiles, bool kHidden, class Quarter>
GAVEL_TARGET_AMX void weigh_keys(const Visit& who, const States& states, const int32_t* visible, float scale_power,
                                 float* scores, bf16_t* p, float* factors, const Quarter& quarter) {
  alignas(64) float reduced[kRows * 16];
  alignas(64) float shifts[16];
  const __m512 none = _mm512_set1_ps(kNone), power = _mm512_set1_ps(scale_power);
  const auto rows = static_cast<__mmask16>((1u << who.rows) - 1u);
  for (int32_t i = 0; i < who.rows; ++i) {
    __m512 most[kTiles];
    for (int v = 0; v < kTiles; ++v) {
      float* place = scores + i * kKeyBlock + 16 * v;
      most[v] = _mm512_load_ps(place);
      if constexpr (kHidden) {
        const auto seen = static_cast<__mmask16>((1u << std::clamp(visible[i] - 16 * v, 0, 16)) - 1u);
        most[v] = _mm512_mask_blend_ps(seen, none, most[v]);
        _mm512_store_ps(place, most[v]);
      }
    }
    for (int v = 1; v < kTiles; ++v) most[0] = _mm512_max_ps(most[0], most[v]);
    _mm512_store_ps(reduced + 16 * i, most[0]);
  }
  for (int32_t i = who.rows; i < kRows; ++i) _mm512_store_ps(reduced + 16 * i, none);
  const __m512 old_top = _mm512_maskz_loadu_ps(rows, states.top + who.first);
  const __m512 top = _mm512_max_ps(old_top, _mm512_mul_ps(reduce_rows<LaneMax>(reduced), power));
  const __m512 shift = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(top, none, _CMP_NEQ_UQ), top);
  const __m512 factor = exp2_lanes(_mm512_sub_ps(old_top, shift));
  _mm512_store_ps(shifts, shift);
  for (int32_t i = 0; i < kRows; ++i) {
    if (i % 4 == 0) quarter(i / 4);
    if (i >= who.rows) continue;
    const __m512 row_shift = _mm512_set1_ps(shifts[i]);
    __m512 x[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int v = 0; v < kTiles; ++v) {
      x[v] = exp2_lanes(_mm512_fmsub_ps(_mm512_load_ps(scores + i * kKeyBlock + 16 * v), power, row_shift));
    }
    _mm512_store_ps(reduced + 16 * i, _mm512_add_ps(_mm512_add_ps(x[0], x[1]), _mm512_add_ps(x[2], x[3])));
    for (int v = 0; v < kTiles; v += 2) {
      _mm512_store_si512(p + i * kKeyBlock + 16 * v, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(x[v + 1], x[v])));
    }
  }
  const __m512 sum = _mm512_maskz_loadu_ps(rows, states.sum + who.first);
  _mm512_mask_storeu_ps(states.sum + who.first, rows, _mm512_fmadd_ps(sum, factor, reduce_rows<LaneSum16>(reduced)));
  _mm512_mask_storeu_ps(states.top + who.first, rows, top);
  _mm512_store_ps(factors, factor);
}

// out * 1 is out: only rows whose top moved are touched.
GAVEL_TARGET_AMX GAVEL_INLINE void rescale(const Visit& who, const float* factors, int32_t head_dim, float* out) {
  uint32_t moved =
      _mm512_cmp_ps_mask(_mm512_load_ps(factors), _mm512_set1_ps(1.0f), _CMP_NEQ_UQ) & ((1u << who.rows) - 1u);
  for (; moved != 0; moved &= moved - 1) {
    const int row = __builtin_ctz(moved);
    float* at = out + int64_t{row} * head_dim;
    const __m512 by = _mm512_set1_ps(factors[row]);
    for (int32_t d = 0; d < head_dim; d += 16) _mm512_store_ps(at + d, _mm512_mul_ps(_mm512_load_ps(at + d), by));
  }
}

}  // namespace gavel::cpu

#undef GAVEL_MULTIPLY

#endif
