// Products of 32 x 32 on AMX tiles for the attention backward, and the forms of their operands.
#pragma once
#include "cpu/attention_amx_lanes.h"
#include "cpu/transpose.h"

#if defined(__x86_64__)

namespace gavel::cpu {

inline constexpr int32_t kGroup = 32;  // queries whose scores are made at once, and rows and columns of a product

GAVEL_TARGET_AMX inline void configure_squares() {
  TileConfig config;
  for (int i = 0; i < 8; ++i) config.set(i, 16, 64);
  load_tile_config(config);
}

// A left operand of 32 rows, `row` bytes apart; `step` bytes from 32 of depth to the next.
struct Left {
  const bf16_t* data;
  int32_t row, step;
};

// c[32][32] (+)= left[32][32 * depth] right[16 * depth pairs][32 columns]; rows of c are c_bytes apart.
struct Product32 {
  Left left;
  const uint32_t* right;
  float* c;
  int32_t c_bytes, depth;
  bool accumulate;
};

GAVEL_TARGET_AMX inline __attribute__((noinline)) void multiply(const Product32& x) {
  constexpr int64_t kRightBytes = 128;
  const auto* left = reinterpret_cast<const uint8_t*>(x.left.data);
  const auto* right = reinterpret_cast<const uint8_t*>(x.right);
  auto* c = reinterpret_cast<uint8_t*>(x.c);
  uint8_t* const c_next = c + 16 * int64_t{x.c_bytes};
  memory_barrier();
  if (x.accumulate) {
    _tile_loadd(0, c, x.c_bytes);
    _tile_loadd(1, c + 64, x.c_bytes);
    _tile_loadd(2, c_next, x.c_bytes);
    _tile_loadd(3, c_next + 64, x.c_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int32_t i = 0; i < x.depth; ++i, left += x.left.step, right += 16 * kRightBytes) {
    _tile_loadd(6, right, kRightBytes);
    _tile_loadd(4, left, x.left.row);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, right + 64, kRightBytes);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, left + 16 * int64_t{x.left.row}, x.left.row);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, x.c_bytes);
  _tile_stored(1, c + 64, x.c_bytes);
  _tile_stored(2, c_next, x.c_bytes);
  _tile_stored(3, c_next + 64, x.c_bytes);
  memory_barrier();
}

// Products that wait until the vector code leaves room for them. They run in the order in which they came.
class ProductQueue {
 public:
  GAVEL_TARGET_AMX void push(const Product32& product) {
    if (end_ - begin_ == kCapacity) run_one();
    products_[end_++ % kCapacity] = product;
  }
  GAVEL_TARGET_AMX GAVEL_INLINE bool run_one() {
    if (begin_ == end_) return false;
    multiply(products_[begin_++ % kCapacity]);
    return true;
  }
  GAVEL_TARGET_AMX void drain() {
    while (run_one()) {
    }
  }

 private:
  static constexpr uint32_t kCapacity = 128;  // a block has 2 x 16 for dV and dK and 8 a group for dQ at head_dim 256
  Product32 products_[kCapacity];
  uint32_t begin_ = 0, end_ = 0;
};

// 32 pairs of words, `first` below `second`.
GAVEL_TARGET_AMX GAVEL_INLINE void store_pairs(__m512i first, __m512i second, uint32_t* out) {
  const __m512i low = _mm512_unpacklo_epi16(first, second), high = _mm512_unpackhi_epi16(first, second);
  // Lanes of 128 bits hold words 0..7, 8..15, 16..23, 24..31.
  const __m512i even = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), odd = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  _mm512_storeu_si512(out, _mm512_permutex2var_epi64(low, even, high));
  _mm512_storeu_si512(out + 16, _mm512_permutex2var_epi64(low, odd, high));
}

// Panels of 32: out[d / 32][pair][d % 32] from rows[2 * pair] and rows[2 * pair + 1], `width` elements each.
GAVEL_TARGET_AMX inline void interleave(const bf16_t* rows, int32_t count, int32_t width, uint32_t* out) {
  for (int32_t row = 0; row < count; row += 2, rows += 2 * width, out += 32) {
    for (int32_t d = 0; d < width; d += 32) {
      store_pairs(_mm512_loadu_si512(rows + d), _mm512_loadu_si512(rows + width + d), out + int64_t{d} * count / 2);
    }
  }
}

// out[word][count] from rows[count][words], both of 32 bits; count is a multiple of 16, words of 8.
GAVEL_TARGET_AMX inline void transpose(const void* rows, int32_t count, int32_t words, void* out) {
  for (int32_t first = 0; first < count; first += 16) {
    const uint32_t* pointers[16];
    for (int32_t i = 0; i < 16; ++i) pointers[i] = static_cast<const uint32_t*>(rows) + int64_t{first + i} * words;
    transpose_rows(pointers, words, static_cast<uint32_t*>(out) + first, count);
  }
}

}  // namespace gavel::cpu

#endif
