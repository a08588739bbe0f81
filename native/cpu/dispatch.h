// One source for every instruction set: a body (an always_inline lambda over plain loops) is compiled for the portable
// target, for AVX2 with FMA and for AVX-512, and the compiler vectorises it. Only + - * / sqrt, explicit fma,
// comparisons and integers may stand in a body: without contraction they have the same bits at every vector width.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

#include "core/context.h"
#include "core/tensor.h"
#include "cpu/vector_math.h"

#define GAVEL_BODY [&]() __attribute__((always_inline))

namespace gavel::cpu {

template <class Body>
__attribute__((noinline)) void run_portable(const Body& body) {
  body();
}

#if defined(__x86_64__)
template <class Body>
__attribute__((target("avx2,fma"), noinline)) void run_fma(const Body& body) {
  body();
}

template <class Body>
GAVEL_TARGET_AVX512 __attribute__((noinline)) void run_avx512(const Body& body) {
  body();
}
#endif

template <class Body>
void run_for_isa([[maybe_unused]] Isa isa, const Body& body) {
#if defined(__x86_64__)
  if (has_avx512(isa)) return run_avx512(body);
  if (isa == Isa::avx2) return run_fma(body);
#endif
  run_portable(body);
}

// Calls body(element) with a null pointer of the element type that `dtype` names: f32 or bf16.
template <class Body>
void with_element(DType dtype, const Body& body) {
  if (dtype == DType::bf16) {
    body(static_cast<bf16_t*>(nullptr));
  } else {
    body(static_cast<float*>(nullptr));
  }
}

GAVEL_INLINE float load_value(const float* value) { return *value; }
GAVEL_INLINE float load_value(const bf16_t* value) { return bf16_to_float(*value); }
GAVEL_INLINE void store_value(float* place, float value) { *place = value; }
GAVEL_INLINE void store_value(bf16_t* place, float value) {
  // float_to_bf16 as one select, which vectorises.
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  *place = static_cast<bf16_t>((bits & 0x7fffffffu) > 0x7f800000u ? ((bits >> 16) | 0x40u) : rounded);
}

// The fixed tree of every sum over a row: 64 lanes, element i in lane i % 64 in ascending order, then halves.
inline constexpr int kSumLanes = 64;

struct LaneSum {
  alignas(64) float lanes[kSumLanes];

  GAVEL_INLINE LaneSum() {
    for (int lane = 0; lane < kSumLanes; ++lane) lanes[lane] = 0.0f;
  }
  template <class Term>
  GAVEL_INLINE void add(int64_t count, const Term& term) {
    int64_t i = 0;
    for (; i + kSumLanes <= count; i += kSumLanes) {
      for (int lane = 0; lane < kSumLanes; ++lane) lanes[lane] += term(i + lane);
    }
    const int rest = static_cast<int>(count - i);
    for (int lane = 0; lane < rest; ++lane) lanes[lane] += term(i + lane);
  }
  GAVEL_INLINE float total() {
    for (int width = kSumLanes / 2; width > 0; width /= 2) {
      for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
    }
    return lanes[0];
  }
};

// sum of term(i), i < count, in the fixed tree.
template <class Term>
GAVEL_INLINE float lane_sum(int64_t count, const Term& term) {
  LaneSum sum;
  sum.add(count, term);
  return sum.total();
}

// condition ? yes : no without a branch: the compiler threads jumps through ternaries and then cannot vectorise the
// loop.
GAVEL_INLINE float choose(bool condition, float yes, float no) {
  const uint32_t mask = 0u - static_cast<uint32_t>(condition);
  return std::bit_cast<float>((std::bit_cast<uint32_t>(yes) & mask) | (std::bit_cast<uint32_t>(no) & ~mask));
}

// exp_one of vector_math.h without branches, so that loops over it vectorise; the same bits.
GAVEL_INLINE float exp_in_loop(float x) {
  float y = choose(x < kExpLowest, kExpLowest, x);
  y = choose(y > kExpHighest, kExpHighest, y);
  const float magic = __builtin_fmaf(y, kLog2e, kRoundMagic), n = magic - kRoundMagic;
  float r = __builtin_fmaf(n, -kLn2High, y);
  r = __builtin_fmaf(n, -kLn2Low, r);
  float p = __builtin_fmaf(kExpPoly[0], r, kExpPoly[1]);
  p = __builtin_fmaf(p, r, kExpPoly[2]);
  p = __builtin_fmaf(p, r, kExpPoly[3]);
  p = __builtin_fmaf(p, r, kExpPoly[4]);
  p = __builtin_fmaf(p, r, kExpPoly[5]);
  p = __builtin_fmaf(p, r * r, r) + 1.0f;
  // The low bits of magic are the integer n.
  const int32_t exponent = static_cast<int32_t>(std::bit_cast<uint32_t>(magic) - std::bit_cast<uint32_t>(kRoundMagic));
  const uint32_t half = static_cast<uint32_t>(exponent >> 1), rest = static_cast<uint32_t>(exponent) - half;
  p *= std::bit_cast<float>((half + 127u) << 23);
  p *= std::bit_cast<float>((rest + 127u) << 23);
  p = choose(x < kExpLowest, 0.0f, p);
  return choose(x > kExpHighest, std::numeric_limits<float>::infinity(), p);
}

// In place: values[i] = exp(values[i]).
void exp_row(Isa isa, float* values, int64_t count);

// Rows of `columns` elements that one work item takes: enough work to be worth dealing, whatever the shape.
inline int64_t rows_per_item(int64_t columns) {
  return std::clamp<int64_t>(16384 / std::max<int64_t>(columns, 1), 1, 256);
}

inline int64_t num_pieces(int64_t count, int64_t step) { return (count + step - 1) / step; }

// Calls body(row) for every row, in parallel.
template <class Body>
void for_rows(Context& context, int64_t rows, int64_t columns, const Body& body) {
  const int64_t step = rows_per_item(columns);
  context.pool->parallel_for(num_pieces(rows, step), [&](int64_t item, int) {
    run_for_isa(
        context.isa, GAVEL_BODY {
          for (int64_t row = item * step; row < std::min(rows, (item + 1) * step); ++row) body(row);
        });
  });
}

}  // namespace gavel::cpu
