#include "cpu/dispatch.h"

namespace gavel::cpu {
namespace {

#if defined(__x86_64__)
GAVEL_TARGET_AVX512 void exp_row_avx512(float* values, int64_t count) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) _mm512_storeu_ps(values + i, exp_lanes(_mm512_loadu_ps(values + i)));
  if (i < count) {
    const __mmask16 rest = static_cast<__mmask16>((1u << (count - i)) - 1u);
    _mm512_mask_storeu_ps(values + i, rest, exp_lanes(_mm512_maskz_loadu_ps(rest, values + i)));
  }
}
#endif

}  // namespace

void exp_row([[maybe_unused]] Isa isa, float* values, int64_t count) {
#if defined(__x86_64__)
  if (isa == Isa::avx512_bf16) return exp_row_avx512(values, count);
#endif
  for (int64_t i = 0; i < count; ++i) values[i] = exp_one(values[i]);
}

}  // namespace gavel::cpu
