#include "cpu/attention_block.h"

#include "cpu/attention_portable.h"

namespace gavel::cpu {
namespace {

template <bool kBf16>
void visit_generic(const BlockVisit& step) {
  visit_portable<kBf16>(step);
}
template <bool kBf16>
float finish_generic(const float* state, int32_t head_dim, void* out) {
  return finish_portable<kBf16>(state, head_dim, out);
}

#if defined(__x86_64__)

// The same code where the compiler may use FMA instructions: without them every fma is a call into libm.
template <bool kBf16>
__attribute__((target("avx2,fma"))) void visit_fma(const BlockVisit& step) {
  visit_portable<kBf16>(step);
}
template <bool kBf16>
__attribute__((target("avx2,fma"))) float finish_fma(const float* state, int32_t head_dim, void* out) {
  return finish_portable<kBf16>(state, head_dim, out);
}

// bf16 without its instructions.
GAVEL_TARGET_AVX512 void visit_wide(const BlockVisit& step) { visit_portable<true>(step); }
GAVEL_TARGET_AVX512 float finish_wide(const float* state, int32_t head_dim, void* out) {
  return finish_portable<true>(state, head_dim, out);
}

#endif

}  // namespace

AttentionKernels attention_kernels([[maybe_unused]] Isa isa, DType dtype) {
  const bool bf16 = dtype == DType::bf16;
#if defined(__x86_64__)
  if (isa == Isa::avx512_bf16 || (isa == Isa::avx512 && !bf16)) return attention_kernels_avx512(dtype);
  if (isa == Isa::avx512) return {visit_wide, finish_wide};
  if (isa == Isa::avx2) {
    if (bf16) return {visit_fma<true>, finish_fma<true>};
    return {visit_fma<false>, finish_fma<false>};
  }
#endif
  if (bf16) return {visit_generic<true>, finish_generic<true>};
  return {visit_generic<false>, finish_generic<false>};
}

}  // namespace gavel::cpu
