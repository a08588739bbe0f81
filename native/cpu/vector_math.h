// The one exp and log of every vector path: libm's bits differ between machines and between scalar and vector code, and
// a second version would give a row other bits than its neighbours'. The scalar and the AVX-512 form do the same
// operations in the same order and give the same bits, NaN payloads aside. Polynomials: Cephes expf and logf (Moshier,
// 1989).
#pragma once
#include <bit>
#include <cstdint>
#include <limits>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

// For functions that use AVX-512 intrinsics; an always_inline one may only be called from functions with this target.
#define GAVEL_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
// With the bf16 instructions, which the compiler uses where an intrinsic asks for them alone.
#define GAVEL_TARGET_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define GAVEL_INLINE inline __attribute__((always_inline))

namespace gavel::cpu {

// Below this exp gives +0: the next power of two is the smallest normal number, and denormals are flushed anyway.
inline constexpr float kExpLowest = -87.3f;
inline constexpr float kExpHighest = 88.72283f;
inline constexpr float kLog2e = 1.44269504088896341f;
inline constexpr float kRoundMagic = 12582912.0f;  // 1.5 * 2^23: adding and subtracting it rounds to an integer
inline constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
inline constexpr float kExpPoly[6] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                      4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
inline constexpr float kLogPoly[9] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                                      -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                                      2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};

// e^x within 1.01 ulp. exp_one(0) = 1 and exp_one(-inf) = +0 exactly; x < -87.3 gives +0, x > 88.72283 +inf, NaN NaN.
GAVEL_INLINE float exp_one(float x) {
  if (!(x >= kExpLowest)) return x < kExpLowest ? 0.0f : x;
  if (x > kExpHighest) return std::numeric_limits<float>::infinity();
  const float n = __builtin_fmaf(x, kLog2e, kRoundMagic) - kRoundMagic;
  float r = __builtin_fmaf(n, -kLn2High, x);
  r = __builtin_fmaf(n, -kLn2Low, r);
  float p = kExpPoly[0];
  for (int i = 1; i < 6; ++i) p = __builtin_fmaf(p, r, kExpPoly[i]);
  p = __builtin_fmaf(p, r * r, r) + 1.0f;
  // Two factors, because 2^128 is no float.
  const int32_t exponent = static_cast<int32_t>(n), half = exponent >> 1;
  p *= std::bit_cast<float>(static_cast<uint32_t>(half + 127) << 23);
  return p * std::bit_cast<float>(static_cast<uint32_t>(exponent - half + 127) << 23);
}

// ln x within 0.8 ulp. log_one(1) = 0 exactly; 0 and denormals give -inf, x < 0 NaN, +inf +inf.
GAVEL_INLINE float log_one(float x) {
  if (!(x >= std::numeric_limits<float>::min())) {
    if (x > -std::numeric_limits<float>::min()) return -std::numeric_limits<float>::infinity();
    return std::numeric_limits<float>::quiet_NaN();
  }
  if (x > std::numeric_limits<float>::max()) return x;
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  float mantissa = std::bit_cast<float>((bits & 0x007fffffu) | 0x3f000000u);  // [0.5, 1)
  float e = static_cast<float>(static_cast<int32_t>(bits >> 23) - 126);
  if (mantissa < 0.707106781186547524f) {
    e -= 1.0f;
    mantissa += mantissa;
  }
  const float f = mantissa - 1.0f, z = f * f;
  float p = kLogPoly[0];
  for (int i = 1; i < 9; ++i) p = __builtin_fmaf(p, f, kLogPoly[i]);
  p = __builtin_fmaf(p * f, z, e * kLn2Low);
  p = __builtin_fmaf(z, -0.5f, p);
  return __builtin_fmaf(e, kLn2High, f + p);
}

#if defined(__x86_64__)

// 16 lanes of exp_one, the same bits.
GAVEL_TARGET_AVX512 GAVEL_INLINE __m512 exp_lanes(__m512 x) {
  const __m512 magic = _mm512_set1_ps(kRoundMagic);
  const __m512 n = _mm512_sub_ps(_mm512_fmadd_ps(x, _mm512_set1_ps(kLog2e), magic), magic);
  __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-kLn2High), x);
  r = _mm512_fmadd_ps(n, _mm512_set1_ps(-kLn2Low), r);
  __m512 p = _mm512_set1_ps(kExpPoly[0]);
  for (int i = 1; i < 6; ++i) p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(kExpPoly[i]));
  p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0f));
  p = _mm512_scalef_ps(p, n);
  const __mmask16 large = _mm512_cmp_ps_mask(x, _mm512_set1_ps(kExpHighest), _CMP_GT_OQ);
  p = _mm512_mask_mov_ps(p, large, _mm512_set1_ps(std::numeric_limits<float>::infinity()));
  // Unordered counts as kept, so NaN passes through.
  const __mmask16 kept = _mm512_cmp_ps_mask(x, _mm512_set1_ps(kExpLowest), _CMP_NLT_UQ);
  return _mm512_maskz_mov_ps(kept, p);
}

// 16 lanes of log_one, the same bits.
GAVEL_TARGET_AVX512 GAVEL_INLINE __m512 log_lanes(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512 infinity = _mm512_set1_ps(std::numeric_limits<float>::infinity());
  __m512 mantissa = _mm512_castsi512_ps(
      _mm512_or_si512(_mm512_and_si512(bits, _mm512_set1_epi32(0x007fffff)), _mm512_set1_epi32(0x3f000000)));
  __m512 e = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_srli_epi32(bits, 23), _mm512_set1_epi32(126)));
  const __mmask16 low = _mm512_cmp_ps_mask(mantissa, _mm512_set1_ps(0.707106781186547524f), _CMP_LT_OQ);
  e = _mm512_mask_sub_ps(e, low, e, _mm512_set1_ps(1.0f));
  mantissa = _mm512_mask_add_ps(mantissa, low, mantissa, mantissa);
  const __m512 f = _mm512_sub_ps(mantissa, _mm512_set1_ps(1.0f)), z = _mm512_mul_ps(f, f);
  __m512 p = _mm512_set1_ps(kLogPoly[0]);
  for (int i = 1; i < 9; ++i) p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kLogPoly[i]));
  p = _mm512_fmadd_ps(_mm512_mul_ps(p, f), z, _mm512_mul_ps(e, _mm512_set1_ps(kLn2Low)));
  p = _mm512_fmadd_ps(z, _mm512_set1_ps(-0.5f), p);
  p = _mm512_fmadd_ps(e, _mm512_set1_ps(kLn2High), _mm512_add_ps(f, p));
  const __m512 smallest = _mm512_set1_ps(std::numeric_limits<float>::min());
  const __mmask16 tiny = _mm512_cmp_ps_mask(x, smallest, _CMP_LT_OQ);
  const __mmask16 negative = _mm512_cmp_ps_mask(x, _mm512_sub_ps(_mm512_setzero_ps(), smallest), _CMP_LE_OQ);
  const __mmask16 unordered = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  p = _mm512_mask_mov_ps(p, _mm512_cmp_ps_mask(x, infinity, _CMP_EQ_OQ), infinity);
  p = _mm512_mask_sub_ps(p, tiny, _mm512_setzero_ps(), infinity);
  return _mm512_mask_mov_ps(p, static_cast<__mmask16>(negative | unordered),
                            _mm512_set1_ps(std::numeric_limits<float>::quiet_NaN()));
}

// 16 lanes of float_to_bf16 (core/dtype.h), the same bits: nearest even, denormals kept, NaN quiet.
GAVEL_TARGET_AVX512 GAVEL_INLINE __m256i bf16_lanes(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __mmask16 nan = _mm512_cmp_epi32_mask(_mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)),
                                              _mm512_set1_epi32(0x7f800000), _MM_CMPINT_NLE);
  rounded = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}

#endif

}  // namespace gavel::cpu
