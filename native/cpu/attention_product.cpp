#include "cpu/attention_product.h"

#include <algorithm>

#include "cpu/transpose.h"
#include "cpu/vector_math.h"

namespace gavel::cpu {
namespace {

GAVEL_INLINE void multiply_portable(const Product& x) {
  for (int32_t row = 0; row < x.rows; ++row) {
    float* c = x.c + row * x.c_stride;
    if (!x.accumulate) std::fill(c, c + x.columns, 0.0f);
    for (int32_t k = 0; k < x.depth; ++k) {
      const float a = x.a[row * x.a_row + k * x.a_step];
      const float* b = x.b + k * x.b_stride;
      for (int32_t n = 0; n < x.columns; ++n) c[n] = __builtin_fmaf(a, b[n], c[n]);
    }
  }
}

GAVEL_INLINE void score_gradient_portable(const ScoreGradient& x) {
  for (int32_t row = 0; row < x.rows; ++row) {
    float* p = x.scores + int64_t{row} * kKeyBlock;
    float* ds = x.gradients + int64_t{row} * kKeyBlock;
    for (int32_t key = 0; key < x.columns; ++key) {
      const bool seen = key < x.visible[row];
      p[key] = seen ? exp_one(p[key] * x.scale - x.lse[row]) : 0.0f;
      ds[key] = seen ? p[key] * (ds[key] - x.mean[row]) * x.scale : 0.0f;
    }
  }
}

void transpose_generic(const float* from, int32_t head_dim, float* to) {
  for (int32_t key = 0; key < kKeyBlock; ++key) {
    for (int32_t d = 0; d < head_dim; ++d) to[d * kKeyBlock + key] = from[key * head_dim + d];
  }
}

void multiply_generic(const Product& x) { multiply_portable(x); }
void score_gradient_generic(const ScoreGradient& x) { score_gradient_portable(x); }

#if defined(__x86_64__)

__attribute__((target("avx2,fma"))) void multiply_fma(const Product& x) { multiply_portable(x); }
__attribute__((target("avx2,fma"))) void score_gradient_fma(const ScoreGradient& x) { score_gradient_portable(x); }

template <int kRows, int kVectors>
GAVEL_TARGET_AVX512 void multiply_tile(const Product& x, int32_t row, int32_t column) {
  const float* a = x.a + row * x.a_row;
  const float* b = x.b + column;
  float* c = x.c + row * x.c_stride + column;
  __m512 sum[kRows][kVectors];
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVectors; ++v) {
      sum[i][v] = x.accumulate ? _mm512_loadu_ps(c + i * x.c_stride + 16 * v) : _mm512_setzero_ps();
    }
  }
  for (int32_t k = 0; k < x.depth; ++k, a += x.a_step, b += x.b_stride) {
    __m512 right[kVectors];
    for (int v = 0; v < kVectors; ++v) right[v] = _mm512_loadu_ps(b + 16 * v);
    for (int i = 0; i < kRows; ++i) {
      const __m512 left = _mm512_set1_ps(a[i * x.a_row]);
      for (int v = 0; v < kVectors; ++v) sum[i][v] = _mm512_fmadd_ps(left, right[v], sum[i][v]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVectors; ++v) _mm512_storeu_ps(c + i * x.c_stride + 16 * v, sum[i][v]);
  }
}

template <int kVectors>
void multiply_rows(const Product& x, int32_t column) {
  for (int32_t row = 0, parts = (x.rows + 5) / 6; parts > 0; --parts) {
    const int32_t count = (x.rows - row + parts - 1) / parts;
    switch (count) {
      case 1:
        multiply_tile<1, kVectors>(x, row, column);
        break;
      case 2:
        multiply_tile<2, kVectors>(x, row, column);
        break;
      case 3:
        multiply_tile<3, kVectors>(x, row, column);
        break;
      case 4:
        multiply_tile<4, kVectors>(x, row, column);
        break;
      case 5:
        multiply_tile<5, kVectors>(x, row, column);
        break;
      default:
        multiply_tile<6, kVectors>(x, row, column);
    }
    row += count;
  }
}

void multiply_avx512(const Product& x) {
  int32_t vectors = x.columns / 16;
  for (int32_t column = 0, parts = (vectors + 3) / 4; parts > 0; --parts) {
    const int32_t width = (vectors + parts - 1) / parts;
    switch (width) {
      case 1:
        multiply_rows<1>(x, column);
        break;
      case 2:
        multiply_rows<2>(x, column);
        break;
      case 3:
        multiply_rows<3>(x, column);
        break;
      default:
        multiply_rows<4>(x, column);
    }
    column += 16 * width;
    vectors -= width;
  }
}

GAVEL_TARGET_AVX512 void score_gradient_avx512(const ScoreGradient& x) {
  const __m512 scale = _mm512_set1_ps(x.scale);
  for (int32_t row = 0; row < x.rows; ++row) {
    float* scores = x.scores + int64_t{row} * kKeyBlock;
    float* gradients = x.gradients + int64_t{row} * kKeyBlock;
    const __m512 lse = _mm512_set1_ps(x.lse[row]), mean = _mm512_set1_ps(x.mean[row]);
    for (int32_t key = 0; key < x.columns; key += 16) {
      const auto seen = static_cast<__mmask16>((1u << std::clamp(x.visible[row] - key, 0, 16)) - 1u);
      const __m512 score = _mm512_sub_ps(_mm512_mul_ps(_mm512_loadu_ps(scores + key), scale), lse);
      const __m512 p = _mm512_maskz_mov_ps(seen, exp_lanes(score));
      const __m512 ds = _mm512_mul_ps(_mm512_mul_ps(p, _mm512_sub_ps(_mm512_loadu_ps(gradients + key), mean)), scale);
      _mm512_storeu_ps(scores + key, p);
      _mm512_storeu_ps(gradients + key, _mm512_maskz_mov_ps(seen, ds));
    }
  }
}

GAVEL_TARGET_AVX512 void transpose_avx512(const float* from, int32_t head_dim, float* to) {
  for (int32_t first = 0; first < kKeyBlock; first += 16) {
    const uint32_t* rows[16];
    for (int32_t i = 0; i < 16; ++i) rows[i] = reinterpret_cast<const uint32_t*>(from + (first + i) * head_dim);
    transpose_rows(rows, head_dim, reinterpret_cast<uint32_t*>(to + first), kKeyBlock);
  }
}

#endif

}  // namespace

ProductKernels product_kernels([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  if (has_avx512(isa)) return {multiply_avx512, score_gradient_avx512, transpose_avx512};
  if (isa == Isa::avx2) return {multiply_fma, score_gradient_fma, transpose_generic};
#endif
  return {multiply_generic, score_gradient_generic, transpose_generic};
}

}  // namespace gavel::cpu
