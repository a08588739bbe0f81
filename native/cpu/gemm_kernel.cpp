// The micro kernel: up to 14 rows x 32 lanes, 6 x 64 (or fewer rows x more panels) of independent chains, k ascending.
// bf16 is vdpbf16ps: inputs denormals-are-zero, acc = fma(hi, hi, acc), then acc = fma(lo, lo, acc), each flushed to
// zero; the portable paths do these two fma themselves, so every path gives the same bits (with flush-to-zero set).
#include <bit>

#include "cpu/gemm.h"
#include "cpu/vector_math.h"

namespace gavel::cpu {
namespace {

#if defined(__x86_64__)

// Computes `kRows` rows of a tile from row `first` on.
using Kernel = void (*)(const Tile&, int first);

// How a chain takes a step: pairs are bf16 without its instruction.
enum class Step { f32, bf16, pairs };

template <Step kStep>
GAVEL_TARGET_AVX512_BF16 GAVEL_INLINE __m512 mac(__m512 acc, __m512i a, __m512i b) {
  if constexpr (kStep == Step::bf16) {
    return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b);
  } else if constexpr (kStep == Step::pairs) {
    const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    acc = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(a, high)),
                          _mm512_castsi512_ps(_mm512_and_si512(b, high)), acc);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(a, 16)), _mm512_castsi512_ps(_mm512_slli_epi32(b, 16)),
                           acc);
  } else {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), acc);
  }
}

template <Step kStep, int kRows, int kHalves>
GAVEL_TARGET_AVX512_BF16 GAVEL_INLINE void take_step(__m512 (&acc)[kRows][kHalves], const uint32_t* a,
                                                     const uint32_t* b, int64_t b_panel) {
  __m512i lanes[kHalves];
#pragma GCC unroll 8
  for (int h = 0; h < kHalves; ++h) lanes[h] = _mm512_loadu_si512(b + (h / 2) * b_panel + (h % 2) * 16);
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
    const __m512i value = _mm512_set1_epi32(static_cast<int>(a[r]));
#pragma GCC unroll 8
    for (int h = 0; h < kHalves; ++h) acc[r][h] = mac<kStep>(acc[r][h], value, lanes[h]);
  }
}

// Tiles of many rows read panels from L2: asked for 16 steps ahead.
template <int kRows, int kPanels>
GAVEL_TARGET_AVX512 GAVEL_INLINE void prefetch_step(const uint32_t* b, int64_t b_panel) {
  if constexpr (kRows == kHalfRows && kPanels == 2) {
#pragma GCC unroll 4
    for (int h = 0; h < 4; ++h) {
      _mm_prefetch(reinterpret_cast<const char*>(b + 16 * kLanes + (h / 2) * b_panel + (h % 2) * 16), _MM_HINT_T0);
    }
  }
}

// The target names bf16 for every step; the instruction is in Step::bf16 alone.
template <Step kStep, int kRows, int kPanels>
GAVEL_TARGET_AVX512_BF16 void kernel_avx512(const Tile& tile, int first) {
  constexpr int kHalves = 2 * kPanels;
  float* const c = tile.c + first * tile.c_row;
  const auto lanes_of = [&](int r, int h) { return c + (h / 2) * tile.c_panel + r * tile.c_row + (h % 2) * 16; };
  __m512 acc[kRows][kHalves];
  if (tile.resume) {
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int h = 0; h < kHalves; ++h) acc[r][h] = _mm512_loadu_ps(lanes_of(r, h));
    }
  } else {
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int h = 0; h < kHalves; ++h) acc[r][h] = _mm512_setzero_ps();
    }
  }
  const uint32_t* a = tile.a + first;
  const uint32_t* b = tile.b;
  const int64_t b_panel = tile.b_panel, a_step = tile.rows;
  int64_t step = tile.steps;
  for (; step >= 2; step -= 2) {
    prefetch_step<kRows, kPanels>(b, b_panel);
    prefetch_step<kRows, kPanels>(b + kLanes, b_panel);
    take_step<kStep>(acc, a, b, b_panel);
    take_step<kStep>(acc, a + a_step, b + kLanes, b_panel);
    a += 2 * a_step;
    b += 2 * kLanes;
  }
  if (step > 0) take_step<kStep>(acc, a, b, b_panel);
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int h = 0; h < kHalves; ++h) _mm512_storeu_ps(lanes_of(r, h), acc[r][h]);
  }
}

template <Step kStep, int kRows>
Kernel kernel_of(int panels) {
  if constexpr (panels_for_rows(kRows) >= 4) {
    if (panels == 4) return kernel_avx512<kStep, kRows, 4>;
  }
  if constexpr (panels_for_rows(kRows) >= 3) {
    if (panels == 3) return kernel_avx512<kStep, kRows, 3>;
  }
  if constexpr (panels_for_rows(kRows) >= 2) {
    if (panels == 2) return kernel_avx512<kStep, kRows, 2>;
  }
  return kernel_avx512<kStep, kRows, 1>;
}

template <Step kStep>
Kernel find_kernel(int rows, int panels) {
  switch (rows) {
#define GAVEL_ROWS(n) \
  case n:             \
    return kernel_of<kStep, n>(panels);
    // clang-format off
    GAVEL_ROWS(1) GAVEL_ROWS(2) GAVEL_ROWS(3) GAVEL_ROWS(4) GAVEL_ROWS(5) GAVEL_ROWS(6) GAVEL_ROWS(7)
    GAVEL_ROWS(8) GAVEL_ROWS(9) GAVEL_ROWS(10) GAVEL_ROWS(11) GAVEL_ROWS(12) GAVEL_ROWS(13)
#undef GAVEL_ROWS
    default: return kernel_of<kStep, 14>(panels);
    // clang-format on
  }
}

template <Step kStep>
void tile_avx512(const Tile& tile) {
  if (tile.rows <= kHalfRows || tile.panels == 1) return find_kernel<kStep>(tile.rows, tile.panels)(tile, 0);
  const int half = (tile.rows + 1) / 2;
  find_kernel<kStep>(half, tile.panels)(tile, 0);
  find_kernel<kStep>(tile.rows - half, tile.panels)(tile, half);
}

#define GAVEL_TARGET_AVX2 __attribute__((target("avx2,fma")))

template <DType kDtype>
GAVEL_TARGET_AVX2 GAVEL_INLINE __m256 mac_avx2(__m256 acc, __m256i a, __m256i b) {
  if constexpr (kDtype == DType::bf16) {
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    acc = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_and_si256(a, high)),
                          _mm256_castsi256_ps(_mm256_and_si256(b, high)), acc);
    return _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(b, 16)),
                           acc);
  } else {
    return _mm256_fmadd_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), acc);
  }
}

// kRows rows x 16 lanes starting at row `row` and lane `lane` of a tile.
template <DType kDtype, int kRows>
GAVEL_TARGET_AVX2 void block_avx2(const Tile& tile, int row, int64_t lane) {
  __m256 acc[kRows][2];
  float* c = tile.c + (lane / kLanes) * tile.c_panel + row * tile.c_row + lane % kLanes;
#pragma GCC unroll 5
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h)
      acc[r][h] = tile.resume ? _mm256_loadu_ps(c + r * tile.c_row + h * 8) : _mm256_setzero_ps();
  }
  const uint32_t* a = tile.a + row;
  const uint32_t* b = tile.b + (lane / kLanes) * tile.b_panel + lane % kLanes;
  for (int64_t step = 0; step < tile.steps; ++step) {
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + 8));
#pragma GCC unroll 5
    for (int r = 0; r < kRows; ++r) {
      const __m256i value = _mm256_set1_epi32(static_cast<int>(a[r]));
      acc[r][0] = mac_avx2<kDtype>(acc[r][0], value, low);
      acc[r][1] = mac_avx2<kDtype>(acc[r][1], value, high);
    }
    a += tile.rows;
    b += kLanes;
  }
#pragma GCC unroll 5
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) _mm256_storeu_ps(c + r * tile.c_row + h * 8, acc[r][h]);
  }
}

template <DType kDtype>
void tile_avx2(const Tile& tile) {
  for (int64_t lane = 0; lane < int64_t{tile.panels} * kLanes; lane += 16) {
    for (int row = 0; row < tile.rows;) {
      const int left = tile.rows - row;
      if (left >= 5) {
        block_avx2<kDtype, 5>(tile, row, lane);
      } else if (left == 4) {
        block_avx2<kDtype, 4>(tile, row, lane);
      } else if (left == 3) {
        block_avx2<kDtype, 3>(tile, row, lane);
      } else if (left == 2) {
        block_avx2<kDtype, 2>(tile, row, lane);
      } else {
        block_avx2<kDtype, 1>(tile, row, lane);
      }
      row += std::min(left, 5);
    }
  }
}

#endif

// Any machine. On arm64 the compiler turns the inner loop into fused multiply-adds on 4 lanes.
template <DType kDtype>
void tile_plain(const Tile& tile) {
  for (int panel = 0; panel < tile.panels; ++panel) {
    for (int row = 0; row < tile.rows; ++row) {
      float acc[kLanes] = {};
      float* c = tile.c + panel * tile.c_panel + row * tile.c_row;
      if (tile.resume) std::copy(c, c + kLanes, acc);
      const uint32_t* b = tile.b + panel * tile.b_panel;
      for (int64_t step = 0; step < tile.steps; ++step, b += kLanes) {
        const uint32_t a = tile.a[step * tile.rows + row];
        if constexpr (kDtype == DType::bf16) {
          const float high = std::bit_cast<float>(a & 0xffff0000u), low = std::bit_cast<float>(a << 16);
          for (int i = 0; i < kLanes; ++i) {
            const float first = __builtin_fmaf(high, std::bit_cast<float>(b[i] & 0xffff0000u), acc[i]);
            acc[i] = __builtin_fmaf(low, std::bit_cast<float>(b[i] << 16), first);
          }
        } else {
          const float value = std::bit_cast<float>(a);
          for (int i = 0; i < kLanes; ++i) acc[i] = __builtin_fmaf(value, std::bit_cast<float>(b[i]), acc[i]);
        }
      }
      std::copy(acc, acc + kLanes, c);
    }
  }
}

}  // namespace

void run_tile_plain(DType dtype, const Tile& tile) {
  dtype == DType::bf16 ? tile_plain<DType::bf16>(tile) : tile_plain<DType::f32>(tile);
}

void run_tile(const GemmPath& path, const Tile& tile) {
#if defined(__x86_64__)
  const bool bf16 = path.dtype == DType::bf16;
  if (path.amx) return run_tile_amx(tile);
  if (has_avx512(path.isa)) {
    if (!bf16) return tile_avx512<Step::f32>(tile);
    return path.isa == Isa::avx512 ? tile_avx512<Step::pairs>(tile) : tile_avx512<Step::bf16>(tile);
  }
  if (path.isa == Isa::avx2) return bf16 ? tile_avx2<DType::bf16>(tile) : tile_avx2<DType::f32>(tile);
#endif
  run_tile_plain(path.dtype, tile);
}

}  // namespace gavel::cpu
