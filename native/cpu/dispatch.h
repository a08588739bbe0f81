// One source for both instruction sets: a body (an always_inline lambda over plain loops) is compiled once for the portable
// target and once for AVX-512, where the compiler vectorises it. Only + - * / sqrt and comparisons may stand in a body:
// without contraction they have the same bits at every vector width. exp has its own row function, below.
#pragma once
#include <algorithm>
#include <cstdint>

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
GAVEL_TARGET_AVX512 __attribute__((noinline)) void run_avx512(const Body& body) {
  body();
}
#endif

template <class Body>
void run_for_isa([[maybe_unused]] Isa isa, const Body& body) {
#if defined(__x86_64__)
  if (isa == Isa::avx512_bf16) return run_avx512(body);
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
inline constexpr int kLanes = 64;

struct LaneSum {
  alignas(64) float lanes[kLanes];

  GAVEL_INLINE LaneSum() {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = 0.0f;
  }
  template <class Term>
  GAVEL_INLINE void add(int64_t count, const Term& term) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
    }
    const int rest = static_cast<int>(count - i);
    for (int lane = 0; lane < rest; ++lane) lanes[lane] += term(i + lane);
  }
  GAVEL_INLINE float total() {
    for (int width = kLanes / 2; width > 0; width /= 2) {
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

// In place: values[i] = exp(values[i]).
void exp_row(Isa isa, float* values, int64_t count);

// Rows of `columns` elements that one work item takes: enough work to be worth dealing, whatever the shape.
inline int64_t rows_per_item(int64_t columns) {
  return std::clamp<int64_t>(16384 / std::max<int64_t>(columns, 1), 1, 256);
}

inline int64_t divide_up(int64_t count, int64_t step) { return (count + step - 1) / step; }

// Elements of a row that elementwise ops with exp take at once: their buffer stays in the L1 cache.
inline constexpr int64_t kPiece = 1024;

// Calls body(row, begin, count) for pieces of rows, in parallel. For elementwise work only: the cut then changes no bit.
template <class Body>
void for_pieces(Context& context, int64_t rows, int64_t columns, const Body& body) {
  const int64_t step = rows_per_item(columns);
  context.pool->parallel_for(divide_up(rows, step), [&](int64_t item, int) {
    for (int64_t row = item * step; row < std::min(rows, (item + 1) * step); ++row) {
      for (int64_t begin = 0; begin < columns; begin += kPiece) body(row, begin, std::min(kPiece, columns - begin));
    }
  });
}

}  // namespace gavel::cpu
