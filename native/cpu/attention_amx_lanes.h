// Vector arithmetic between the tile products of attention: a base-two exponential and reductions of sixteen rows.
#pragma once
#include "cpu/amx_tiles.h"

#if defined(__x86_64__)

namespace gavel::cpu {

// 2^r on [-1/2, 1/2] within 1.1e-7 (minimax); 1 at 0 exactly.
inline constexpr float kExp2Poly[6] = {1.3264727e-3f, 9.671513e-3f, 5.5507336e-2f, 2.4022242e-1f, 6.93147e-1f, 1.0f};

// 2^x for x <= about 0: +0 or a denormal, which every reader flushes, from -126 down, -inf included; NaN stays.
GAVEL_TARGET_AMX GAVEL_INLINE __m512 exp2_lanes(__m512 x) {
  // max gives its second operand when one is NaN.
  x = _mm512_max_ps(_mm512_set1_ps(-127.0f), x);
  const __m512 magic = _mm512_set1_ps(kRoundMagic);
  const __m512 shifted = _mm512_add_ps(x, magic);
  const __m512 r = _mm512_sub_ps(x, _mm512_sub_ps(shifted, magic));
  __m512 p = _mm512_set1_ps(kExp2Poly[0]);
  for (int i = 1; i < 6; ++i) p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(kExp2Poly[i]));
  // The low bits of `shifted` are the integer exponent.
  return _mm512_castsi512_ps(
      _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(shifted), 23)));
}

struct LaneMax {
  GAVEL_TARGET_AMX GAVEL_INLINE static __m512 combine(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
};
struct LaneSum16 {
  GAVEL_TARGET_AMX GAVEL_INLINE static __m512 combine(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
};

// Lane i of the result is row i of rows[16][16] reduced in halves: lanes 8 apart, then 4, 2, 1.
template <class Op>
GAVEL_TARGET_AMX GAVEL_INLINE __m512 reduce_rows(const float* rows) {
  __m512 pairs[8], fours[4], halves[2];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    // Row i of the transposed 4 x 4 order, which the steps below undo.
    const int first = 2 * i, second = 2 * i + 1;
    const __m512 a = _mm512_load_ps(rows + 16 * (first % 4 * 4 + first / 4));
    const __m512 b = _mm512_load_ps(rows + 16 * (second % 4 * 4 + second / 4));
    pairs[i] = Op::combine(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512 a = pairs[2 * i], b = pairs[2 * i + 1];
    fours[i] = Op::combine(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const __m512 a = fours[2 * i], b = fours[2 * i + 1];
    halves[i] = Op::combine(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
  }
  return Op::combine(_mm512_shuffle_ps(halves[0], halves[1], 0x88), _mm512_shuffle_ps(halves[0], halves[1], 0xdd));
}

}  // namespace gavel::cpu

#endif
