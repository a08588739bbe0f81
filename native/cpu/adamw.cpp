// AdamW in the order of operations of torch's single-tensor loop: decay, first moment by lerp, second moment, then the
// step. Padding of panels stays zero: its gradient is zero.
// States narrower than fp32 are widened, moved and rounded block by block in buffers that stay in the first cache.
#include <cmath>

#include "cpu/dispatch.h"
#include "cpu/dynamic_code.h"
#include "cpu/kernels.h"
#include "cpu/philox_block.h"

namespace gavel::cpu {
namespace {

constexpr int64_t kElements = 8192;
static_assert(kElements % kStateBlock == 0);

// Scalars by value: through a reference the compiler would reload them after every store and could not vectorise.
GAVEL_INLINE void update(float* __restrict parameter, float* __restrict moment1, float* __restrict moment2,
                         const float* __restrict grad, int64_t count, const AdamWScalars s) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = grad[i] * s.grad_scale;
    const float m = moment1[i] + (g - moment1[i]) * s.weight1;
    const float v = moment2[i] * s.beta2 + g * g * s.weight2;
    moment1[i] = m;
    moment2[i] = v;
    parameter[i] = parameter[i] * s.keep - m / (__builtin_sqrtf(v) * s.inverse_root2 + s.eps) * s.step_size;
  }
}

template <class X>
GAVEL_INLINE void round_to(X* __restrict value, const float* __restrict master, int64_t count) {
  for (int64_t i = 0; i < count; ++i) store_value(value + i, master[i]);
}

// Adds 16 random bits below the kept ones and cuts: up or down, each as likely as the value is near.
template <int kWord, int kShift>
GAVEL_INLINE void round_stochastically(bf16_t* __restrict out, const float* __restrict values,
                                       const Draws& __restrict draws, int64_t count) {
  for (int64_t half = 0; half < 2; ++half) {
    const int64_t begin = half * kDrawsPerBlock, end = std::min(count, begin + kDrawsPerBlock);
    const uint32_t* __restrict words = draws.words[kWord + 2 * half];
    for (int64_t i = begin; i < end; ++i) {
      const uint32_t bits = (words[i - begin] >> kShift) & 0xffffu;
      out[i] = static_cast<bf16_t>((std::bit_cast<uint32_t>(values[i]) + bits) >> 16);
    }
  }
}

template <class X>
GAVEL_INLINE void widen(float* __restrict out, const X* __restrict values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = load_value(values + i);
}

// One block of kStateBlock elements (fewer at the end) whose states, or whose value, are not plain fp32.
template <DType kState, bool kStochasticValue>
GAVEL_INLINE void update_block([[maybe_unused]] Isa isa, const AdamW& p, float* parameter, int64_t block,
                               const AdamWScalars& scalars) {
  alignas(64) float moment1[kStateBlock], moment2[kStateBlock], wide[kStateBlock];
  Draws draws;
  const int64_t begin = block * kStateBlock, count = std::min(kStateBlock, p.count - begin);
  if constexpr (kState == DType::bf16 || kStochasticValue)
    draw(isa, draws,
         {p.seed, p.parameter, static_cast<uint32_t>(p.step), static_cast<uint32_t>(block * kDrawsPerBlock)});

  float *m = moment1, *v = moment2, *w = parameter + begin;
  if constexpr (kState == DType::f32) {
    m = p.moment1.f32() + begin;
    v = p.moment2.f32() + begin;
  } else if constexpr (kState == DType::bf16) {
    widen(m, p.moment1.bf16() + begin, count);
    widen(v, p.moment2.bf16() + begin, count);
  } else {
    decode(m, static_cast<const uint8_t*>(p.moment1.data) + begin, p.scales1[block], kSignedMap.data(), count);
    decode(v, static_cast<const uint8_t*>(p.moment2.data) + begin, p.scales2[block], kUnsignedMap.data(), count);
  }
  if constexpr (kStochasticValue) {
    w = wide;
    widen(w, p.value.bf16() + begin, count);
  }
  update(w, m, v, p.grad + begin, count, scalars);
  if constexpr (kState == DType::bf16) {
    round_stochastically<0, 0>(p.moment1.bf16() + begin, m, draws, count);
    round_stochastically<0, 16>(p.moment2.bf16() + begin, v, draws, count);
  } else if constexpr (kState == DType::u8) {
    p.scales1[block] = encode<true>(static_cast<uint8_t*>(p.moment1.data) + begin, m, count);
    p.scales2[block] = encode<false>(static_cast<uint8_t*>(p.moment2.data) + begin, v, count);
  }
  if constexpr (kStochasticValue) round_stochastically<1, 0>(p.value.bf16() + begin, w, draws, count);
}

template <DType kState, bool kStochasticValue>
GAVEL_INLINE void update_blocks(Isa isa, const AdamW& p, float* parameter, int64_t begin, int64_t count,
                                const AdamWScalars& scalars) {
  for (int64_t at = begin; at < begin + count; at += kStateBlock)
    update_block<kState, kStochasticValue>(isa, p, parameter, at / kStateBlock, scalars);
}

}  // namespace

void adamw_forward(Context& context, const AdamW& p) {
  const AdamWScalars scalars(p);
  const bool stochastic = !p.master && p.value.dtype == DType::bf16;
  float* parameter = stochastic ? nullptr : p.master ? p.master.f32() : p.value.f32();
  const DType state = p.moment1.dtype;
  const Isa isa = context.isa;
  context.pool->parallel_for(num_pieces(p.count, kElements), [&](int64_t item, int) {
    const int64_t begin = item * kElements, count = std::min(kElements, p.count - begin);
    run_for_isa(
        isa, GAVEL_BODY {
          if (stochastic) {
            if (state == DType::u8) return update_blocks<DType::u8, true>(isa, p, nullptr, begin, count, scalars);
            if (state == DType::bf16) return update_blocks<DType::bf16, true>(isa, p, nullptr, begin, count, scalars);
            return update_blocks<DType::f32, true>(isa, p, nullptr, begin, count, scalars);
          }
          if (state == DType::u8) {
            update_blocks<DType::u8, false>(isa, p, parameter, begin, count, scalars);
          } else if (state == DType::bf16) {
            update_blocks<DType::bf16, false>(isa, p, parameter, begin, count, scalars);
          } else {
            update(parameter + begin, p.moment1.f32() + begin, p.moment2.f32() + begin, p.grad + begin, count, scalars);
          }
          if (!p.master) return;
          if (p.value.dtype == DType::bf16) {
            round_to(p.value.bf16() + begin, parameter + begin, count);
          } else {
            round_to(p.value.f32() + begin, parameter + begin, count);
          }
        });
  });
}

}  // namespace gavel::cpu
