// In-register transpose of 16 rows of 32-bit words.
#pragma once
#include <cstdint>

#include "cpu/vector_math.h"

namespace gavel::cpu {

#if defined(__x86_64__)

// out[w * stride + r] = rows[r][w] for 16 rows; `words` is a multiple of 8.
GAVEL_TARGET_AVX512 inline void transpose_rows(const uint32_t* const* rows, int32_t words, uint32_t* out,
                                               int64_t stride) {
  for (int32_t first = 0; first < words; first += 16) {
    const int32_t count = words - first < 16 ? words - first : 16;
    const auto mask = static_cast<__mmask16>((1u << count) - 1u);
    __m512i v[16], t[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) v[i] = _mm512_maskz_loadu_epi32(mask, rows[i] + first);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      t[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
      t[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      v[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
      v[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
      v[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
      v[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      t[i] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0x88);
      t[i + 4] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0xdd);
      t[i + 8] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0x88);
      t[i + 12] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      v[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
      v[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
      v[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
      v[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
    uint32_t* to = out + first * stride;
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) _mm512_storeu_si512(to + i * stride, v[i]);
    if (count == 16) {
#pragma GCC unroll 8
      for (int i = 8; i < 16; ++i) _mm512_storeu_si512(to + i * stride, v[i]);
    }
  }
}

#endif

}  // namespace gavel::cpu
