// Packing of operands (layouts in gemm.h). Pure moves: no value is changed, so the instruction set only changes speed.
#include <cstring>

#include "cpu/gemm.h"
#include "cpu/vector_math.h"

namespace gavel::cpu {
namespace {

uint32_t load_bits(const void* data, int64_t index, DType dtype) {
  if (dtype == DType::bf16) return static_cast<const bf16_t*>(data)[index];
  return static_cast<const uint32_t*>(data)[index];
}

void pack_rows_plain(DType dtype, const void* const* rows, int count, int64_t length, uint32_t* dst) {
  for (int row = 0; row < count; ++row) {
    if (dtype == DType::f32) {
      const uint32_t* source = static_cast<const uint32_t*>(rows[row]);
      for (int64_t k = 0; k < length; ++k) dst[k * count + row] = source[k];
      continue;
    }
    const bf16_t* source = static_cast<const bf16_t*>(rows[row]);
    for (int64_t k = 0; k < length; k += 2) {
      const uint32_t odd = k + 1 < length ? source[k + 1] : 0u;
      dst[k / 2 * count + row] = source[k] | odd << 16;
    }
  }
}

void pack_columns_plain(DType dtype, const void* matrix, int64_t stride, int64_t rows, int64_t column, int count,
                        int width, uint32_t* dst) {
  const int64_t per_step = dtype == DType::bf16 ? 2 : 1;
  for (int64_t row = 0; row < rows; row += per_step, dst += width) {
    for (int i = 0; i < count; ++i) {
      dst[i] = load_bits(matrix, row * stride + column + i, dtype);
      if (per_step == 2 && row + 1 < rows) dst[i] |= load_bits(matrix, (row + 1) * stride + column + i, dtype) << 16;
    }
    std::fill(dst + count, dst + width, 0u);
  }
}

void pack_transposed_plain(DType dtype, const void* weight, int64_t k_total, int64_t k_panel, int64_t step,
                           int64_t steps, uint32_t* dst) {
  const int64_t k_even = round_up(k_total, 2), first = k_panel * kPanel;
  for (int64_t s = step; s < step + steps; ++s, dst += kLanes) {
    for (int64_t i = 0; i < kLanes; ++i) {
      const int64_t k = first + i;
      if (k >= k_even) {
        dst[i] = 0;
      } else if (dtype == DType::f32) {
        dst[i] = load_bits(weight, panel_index(s, k, k_total, dtype), dtype);
      } else {
        dst[i] = load_bits(weight, panel_index(2 * s, k, k_total, dtype), dtype) |
                 load_bits(weight, panel_index(2 * s + 1, k, k_total, dtype), dtype) << 16;
      }
    }
  }
}

#if defined(__x86_64__)

// In-register transpose of 16 x 16 dwords.
GAVEL_TARGET_AVX512 GAVEL_INLINE void transpose16(__m512i* v) {
  __m512i t[16];
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
}

GAVEL_TARGET_AVX512 void pack_rows_avx512(DType dtype, const void* const* rows, int count, int64_t length,
                                          uint32_t* dst) {
  // Counted in 16-bit words, so that an odd bf16 length is a mask and its partner zero.
  const int64_t words = length * static_cast<int64_t>(dtype_size(dtype)) / 2, steps = (words + 1) / 2;
  const __mmask16 lanes = static_cast<__mmask16>((1u << count) - 1);
  for (int64_t step = 0; step < steps; step += 16) {
    const int64_t left = words - 2 * step;
    const __mmask32 mask = left >= 32 ? ~__mmask32{0} : static_cast<__mmask32>((uint64_t{1} << left) - 1);
    __m512i v[16];
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) {
      v[r] = _mm512_setzero_si512();
      if (r < count) v[r] = _mm512_maskz_loadu_epi16(mask, static_cast<const uint16_t*>(rows[r]) + 2 * step);
    }
    transpose16(v);
    const int64_t last = std::min<int64_t>(16, steps - step);
#pragma GCC unroll 16
    for (int s = 0; s < 16; ++s) {
      if (s < last) _mm512_mask_storeu_epi32(dst + (step + s) * count, lanes, v[s]);
    }
  }
}

// AMX form: every 16 x 16 dwords together, 64 bytes of a row after another. Rows past `count` keep what they held
// (their results are never stored) except in a second half, which the tile loads whole.
GAVEL_TARGET_AVX512 void pack_rows_amx(const void* const* rows, int count, int64_t length, uint32_t* dst) {
  const int64_t blocks = divide_up(length, 32);
  const int padded = count <= 16 ? count : static_cast<int>(round_up(count, 16));
  for (int r = 0; r < padded; ++r) {
    uint32_t* to = dst + (r / 16) * blocks * 256 + (r % 16) * 16;
    for (int64_t block = 0; block < blocks; ++block, to += 256) {
      const int64_t left = length - block * 32;
      const __mmask32 mask = left >= 32 ? ~__mmask32{0} : static_cast<__mmask32>((uint64_t{1} << left) - 1);
      __m512i value = _mm512_setzero_si512();
      if (r < count) value = _mm512_maskz_loadu_epi16(mask, static_cast<const uint16_t*>(rows[r]) + block * 32);
      _mm512_storeu_si512(to, value);
    }
  }
}

GAVEL_TARGET_AVX512 void pack_columns_avx512(DType dtype, const void* matrix, int64_t stride, int64_t rows,
                                             int64_t column, int count, int width, uint32_t* dst) {
  const int64_t per_step = dtype == DType::bf16 ? 2 : 1;
  for (int first = 0; first < width; first += 16) {
    const int valid = std::clamp(count - first, 0, 16), kept = std::min(width - first, 16);
    const __mmask16 in = static_cast<__mmask16>((1u << valid) - 1), out = static_cast<__mmask16>((1u << kept) - 1);
    uint32_t* to = dst + first;
    for (int64_t row = 0; row < rows; row += per_step, to += width) {
      __m512i value;
      if (dtype == DType::bf16) {
        const bf16_t* from = static_cast<const bf16_t*>(matrix) + row * stride + column + first;
        value = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(in, from));
        if (row + 1 < rows) {
          const __m512i next = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(in, from + stride));
          value = _mm512_or_si512(value, _mm512_slli_epi32(next, 16));
        }
      } else {
        value = _mm512_maskz_loadu_epi32(in, static_cast<const uint32_t*>(matrix) + row * stride + column + first);
      }
      _mm512_mask_storeu_epi32(to, out, value);
    }
  }
}

// X^T for AMX: 16 columns k of X are the rows, pairs of rows m the steps.
GAVEL_TARGET_AVX512 void pack_columns_amx_avx512(const bf16_t* matrix, int64_t stride, int64_t rows, int64_t column,
                                                 int count, uint32_t* dst) {
  const __mmask16 mask = static_cast<__mmask16>((1u << std::clamp(count, 0, 16)) - 1);
  for (int64_t row = 0; row < rows; row += 32, dst += 256) {
    __m512i v[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      v[i] = _mm512_setzero_si512();
      const int64_t m = row + 2 * i;
      if (m < rows) v[i] = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, matrix + m * stride + column));
      if (m + 1 < rows) {
        const __m512i odd = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, matrix + (m + 1) * stride + column));
        v[i] = _mm512_or_si512(v[i], _mm512_slli_epi32(odd, 16));
      }
    }
    transpose16(v);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) _mm512_storeu_si512(dst + i * 16, v[i]);
  }
}

// Whole source panels only: `step` and the 16-step blocks below never leave the padded weight.
GAVEL_TARGET_AVX512 void pack_transposed_bf16(const uint32_t* weight, int64_t k_even, int64_t k_panel, int64_t step,
                                              int64_t steps, uint32_t* dst) {
  alignas(64) uint16_t even_words[32], odd_words[32];
  for (int i = 0; i < 16; ++i) {
    even_words[2 * i] = static_cast<uint16_t>(i);
    even_words[2 * i + 1] = static_cast<uint16_t>(32 + i);
    odd_words[2 * i] = static_cast<uint16_t>(16 + i);
    odd_words[2 * i + 1] = static_cast<uint16_t>(48 + i);
  }
  const __m512i low = _mm512_load_si512(even_words), high = _mm512_load_si512(odd_words);
  const int64_t pair_begin = k_panel * 16, pairs = std::min<int64_t>(16, k_even / 2 - pair_begin);
  for (int64_t done = 0; done < steps; done += 8) {
    const int64_t n = 2 * (step + done);
    const uint32_t* from = weight + (n / kPanel) * (k_even / 2) * kPanel + pair_begin * kPanel + n % kPanel;
    __m512i v[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      v[i] = _mm512_setzero_si512();
      if (i < pairs) v[i] = _mm512_loadu_si512(from + i * kPanel);
    }
    transpose16(v);
    const int64_t last = std::min<int64_t>(8, steps - done);
#pragma GCC unroll 8
    for (int s = 0; s < 8; ++s) {
      if (s >= last) break;
      uint32_t* to = dst + (done + s) * kLanes;
      _mm512_storeu_si512(to, _mm512_permutex2var_epi16(v[2 * s], low, v[2 * s + 1]));
      _mm512_storeu_si512(to + 16, _mm512_permutex2var_epi16(v[2 * s], high, v[2 * s + 1]));
    }
  }
}

GAVEL_TARGET_AVX512 void pack_transposed_f32(const uint32_t* weight, int64_t k_even, int64_t k_panel, int64_t step,
                                             int64_t steps, uint32_t* dst) {
  for (int64_t done = 0; done < steps; done += 16) {
    const int64_t n = step + done, last = std::min<int64_t>(16, steps - done);
    for (int64_t half = 0; half < 2; ++half) {
      const int64_t k = k_panel * kPanel + half * 16, count = std::clamp<int64_t>(k_even - k, 0, 16);
      const uint32_t* from = weight + (n / kPanel) * k_even * kPanel + k * kPanel + n % kPanel;
      __m512i v[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        v[i] = _mm512_setzero_si512();
        if (i < count) v[i] = _mm512_loadu_si512(from + i * kPanel);
      }
      transpose16(v);
#pragma GCC unroll 16
      for (int s = 0; s < 16; ++s) {
        if (s < last) _mm512_storeu_si512(dst + (done + s) * kLanes + half * 16, v[s]);
      }
    }
  }
}

GAVEL_TARGET_AVX512 void add_column_sums_avx512(DType dtype, const void* matrix, int64_t stride, int64_t rows,
                                                int64_t column, int count, float* sums) {
  for (int first = 0; first < count; first += 16) {
    const __mmask16 mask = static_cast<__mmask16>((1u << std::min(count - first, 16)) - 1);
    __m512 sum = _mm512_maskz_loadu_ps(mask, sums + first);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t at = row * stride + column + first;
      if (dtype == DType::bf16) {
        const __m256i bits = _mm256_maskz_loadu_epi16(mask, static_cast<const bf16_t*>(matrix) + at);
        sum = _mm512_add_ps(sum, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16)));
      } else {
        sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, static_cast<const float*>(matrix) + at));
      }
    }
    _mm512_mask_storeu_ps(sums + first, mask, sum);
  }
}

#endif

}  // namespace

void pack_rows(const GemmPath& path, const void* const* rows, int count, int64_t length, uint32_t* dst) {
#if defined(__x86_64__)
  if (path.amx) return pack_rows_amx(rows, count, length, dst);
  if (has_avx512(path.isa)) return pack_rows_avx512(path.dtype, rows, count, length, dst);
#endif
  pack_rows_plain(path.dtype, rows, count, length, dst);
}

void pack_matrix_rows(const GemmPath& path, const void* matrix, int64_t first, int count, int64_t length,
                      uint32_t* dst) {
  const void* rows[2 * GemmPath::kUnit];
  const int64_t size = length * static_cast<int64_t>(dtype_size(path.dtype));
  for (int i = 0; i < count; ++i) rows[i] = static_cast<const uint8_t*>(matrix) + (first + i) * size;
  pack_rows(path, rows, count, length, dst);
}

void pack_columns(Isa isa, DType dtype, const void* matrix, int64_t stride, int64_t rows, int64_t column, int count,
                  int width, uint32_t* dst) {
#if defined(__x86_64__)
  if (has_avx512(isa)) return pack_columns_avx512(dtype, matrix, stride, rows, column, count, width, dst);
#endif
  static_cast<void>(isa);
  pack_columns_plain(dtype, matrix, stride, rows, column, count, width, dst);
}

void pack_columns_amx(const void* matrix, int64_t stride, int64_t rows, int64_t column, int count, uint32_t* dst) {
#if defined(__x86_64__)
  pack_columns_amx_avx512(static_cast<const bf16_t*>(matrix), stride, rows, column, count, dst);
#else
  static_cast<void>(matrix), static_cast<void>(stride), static_cast<void>(rows), static_cast<void>(column);
  static_cast<void>(count), static_cast<void>(dst);
#endif
}

void pack_transposed(Isa isa, DType dtype, const void* weight, int64_t k_total, int64_t k_panel, int64_t step,
                     int64_t steps, uint32_t* dst) {
#if defined(__x86_64__)
  if (has_avx512(isa)) {
    const auto pack = dtype == DType::bf16 ? pack_transposed_bf16 : pack_transposed_f32;
    return pack(static_cast<const uint32_t*>(weight), round_up(k_total, 2), k_panel, step, steps, dst);
  }
#endif
  static_cast<void>(isa);
  pack_transposed_plain(dtype, weight, k_total, k_panel, step, steps, dst);
}

void add_column_sums(Isa isa, DType dtype, const void* matrix, int64_t stride, int64_t rows, int64_t column, int count,
                     float* sums) {
#if defined(__x86_64__)
  if (has_avx512(isa)) return add_column_sums_avx512(dtype, matrix, stride, rows, column, count, sums);
#endif
  static_cast<void>(isa);
  for (int64_t row = 0; row < rows; ++row) {
    for (int i = 0; i < count; ++i) {
      const uint32_t bits = load_bits(matrix, row * stride + column + i, dtype);
      sums[i] += std::bit_cast<float>(dtype == DType::bf16 ? bits << 16 : bits);
    }
  }
}

}  // namespace gavel::cpu
