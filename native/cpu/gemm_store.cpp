// The end of a chain: + bias, + residual, one rounding (dtype.h's, in both forms).
#include "cpu/gemm.h"
#include "cpu/vector_math.h"

namespace gavel::cpu {
namespace {

float load_one(const void* data, int64_t index, DType dtype) {
  return dtype == DType::bf16 ? bf16_to_float(static_cast<const bf16_t*>(data)[index])
                              : static_cast<const float*>(data)[index];
}

void store_plain(const TileStore& store, const float* c, int64_t c_row, int64_t row, int rows, int64_t column,
                 int64_t count) {
  for (int r = 0; r < rows; ++r, c += c_row) {
    const int64_t at = (row + r) * store.columns + column;
    for (int64_t i = 0; i < count; ++i) {
      float value = c[i];
      if (store.bias != nullptr) value += load_one(store.bias, column + i, store.bias_dtype);
      if (store.residual != nullptr) value += load_one(store.residual, at + i, store.dtype);
      if (store.dtype == DType::bf16) {
        static_cast<bf16_t*>(store.out)[at + i] = float_to_bf16(value);
      } else {
        static_cast<float*>(store.out)[at + i] = value;
      }
    }
  }
}

#if defined(__x86_64__)

GAVEL_TARGET_AVX512 GAVEL_INLINE __m512 load_lanes(const void* data, int64_t index, DType dtype, __mmask16 mask) {
  if (dtype == DType::f32) return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(data) + index);
  const __m256i bits = _mm256_maskz_loadu_epi16(mask, static_cast<const bf16_t*>(data) + index);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

GAVEL_TARGET_AVX512 void store_avx512(const TileStore& store, const float* c, int64_t c_row, int64_t row, int rows,
                                      int64_t column, int64_t count) {
  for (int64_t first = 0; first < count; first += 16) {
    const __mmask16 mask = static_cast<__mmask16>((1u << std::min<int64_t>(count - first, 16)) - 1);
    __m512 bias = _mm512_setzero_ps();
    if (store.bias != nullptr) bias = load_lanes(store.bias, column + first, store.bias_dtype, mask);
    for (int r = 0; r < rows; ++r) {
      const int64_t at = (row + r) * store.columns + column + first;
      __m512 value = _mm512_maskz_loadu_ps(mask, c + r * c_row + first);
      if (store.bias != nullptr) value = _mm512_add_ps(value, bias);
      if (store.residual != nullptr) value = _mm512_add_ps(value, load_lanes(store.residual, at, store.dtype, mask));
      if (store.dtype == DType::bf16) {
        _mm256_mask_storeu_epi16(static_cast<bf16_t*>(store.out) + at, mask, bf16_lanes(value));
      } else {
        _mm512_mask_storeu_ps(static_cast<float*>(store.out) + at, mask, value);
      }
    }
  }
}

#endif

}  // namespace

void store_tile(Isa isa, const TileStore& store, const float* c, int64_t c_row, int64_t row, int rows, int64_t column,
                int64_t count) {
#if defined(__x86_64__)
  if (has_avx512(isa)) return store_avx512(store, c, c_row, row, rows, column, count);
#endif
  static_cast<void>(isa);
  store_plain(store, c, c_row, row, rows, column, count);
}

}  // namespace gavel::cpu
