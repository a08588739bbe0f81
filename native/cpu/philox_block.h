// philox() of core/philox.h over the counters of one block of AdamW's states: the same bits in a loop that the compiler
// vectorises, and with AVX-512's widening multiplications, which it does not find.
#pragma once
#include "core/context.h"
#include "cpu/vector_math.h"
#include "ops/adamw.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gavel::cpu {

struct Draws {
  alignas(64) uint32_t words[4][kDrawsPerBlock];
};

// The key of random_bits() for position `first` and those after it.
struct DrawKey {
  uint64_t seed, item;
  uint32_t step, first;
};

GAVEL_INLINE void draw_portable(Draws& draws, const DrawKey& key) {
  for (uint32_t i = 0; i < kDrawsPerBlock; ++i) {
    uint32_t a = key.first + i, b = key.step, c = static_cast<uint32_t>(key.item),
             d = static_cast<uint32_t>(key.item >> 32);
    uint32_t key0 = static_cast<uint32_t>(key.seed), key1 = static_cast<uint32_t>(key.seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const uint64_t low = uint64_t{0xD2511F53u} * a, high = uint64_t{0xCD9E8D57u} * c;
      a = static_cast<uint32_t>(high >> 32) ^ b ^ key0;
      b = static_cast<uint32_t>(high);
      c = static_cast<uint32_t>(low >> 32) ^ d ^ key1;
      d = static_cast<uint32_t>(low);
      key0 += 0x9E3779B9u;
      key1 += 0xBB67AE85u;
    }
    draws.words[0][i] = a;
    draws.words[1][i] = b;
    draws.words[2][i] = c;
    draws.words[3][i] = d;
  }
}

#if defined(__x86_64__)
// Even and odd counters are multiplied apart, since a product fills the places of both; masked shuffles put the halves
// of the products together and leave the multiplier's port alone.
GAVEL_TARGET_AVX512 inline void draw_avx512(Draws& draws, const DrawKey& key) {
  const __m512i factor_a = _mm512_set1_epi64(0xD2511F53u), factor_c = _mm512_set1_epi64(0xCD9E8D57u);
  const __m512i steps = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  constexpr __mmask16 kEven = 0x5555, kOdd = 0xAAAA;
  constexpr auto kFromOdd = static_cast<_MM_PERM_ENUM>(0xF5), kFromEven = static_cast<_MM_PERM_ENUM>(0xA0);
  uint32_t keys[2][10] = {{static_cast<uint32_t>(key.seed)}, {static_cast<uint32_t>(key.seed >> 32)}};
  for (int round = 1; round < 10; ++round) {
    keys[0][round] = keys[0][round - 1] + 0x9E3779B9u;
    keys[1][round] = keys[1][round - 1] + 0xBB67AE85u;
  }
  for (uint32_t i = 0; i < kDrawsPerBlock; i += 16) {
    __m512i a = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(key.first + i)), steps);
    __m512i b = _mm512_set1_epi32(static_cast<int>(key.step));
    __m512i c = _mm512_set1_epi32(static_cast<int>(static_cast<uint32_t>(key.item)));
    __m512i d = _mm512_set1_epi32(static_cast<int>(static_cast<uint32_t>(key.item >> 32)));
    for (int round = 0; round < 10; ++round) {
      const __m512i a_even = _mm512_mul_epu32(a, factor_a), c_even = _mm512_mul_epu32(c, factor_c);
      const __m512i a_odd = _mm512_mul_epu32(_mm512_shuffle_epi32(a, kFromOdd), factor_a);
      const __m512i c_odd = _mm512_mul_epu32(_mm512_shuffle_epi32(c, kFromOdd), factor_c);
      const __m512i a_high = _mm512_mask_shuffle_epi32(a_odd, kEven, a_even, kFromOdd);
      const __m512i c_high = _mm512_mask_shuffle_epi32(c_odd, kEven, c_even, kFromOdd);
      // 0x96 is the exclusive or of three.
      a = _mm512_ternarylogic_epi32(c_high, b, _mm512_set1_epi32(static_cast<int>(keys[0][round])), 0x96);
      b = _mm512_mask_shuffle_epi32(c_even, kOdd, c_odd, kFromEven);
      c = _mm512_ternarylogic_epi32(a_high, d, _mm512_set1_epi32(static_cast<int>(keys[1][round])), 0x96);
      d = _mm512_mask_shuffle_epi32(a_even, kOdd, a_odd, kFromEven);
    }
    _mm512_store_si512(draws.words[0] + i, a);
    _mm512_store_si512(draws.words[1] + i, b);
    _mm512_store_si512(draws.words[2] + i, c);
    _mm512_store_si512(draws.words[3] + i, d);
  }
}
#endif

GAVEL_INLINE void draw([[maybe_unused]] Isa isa, Draws& draws, const DrawKey& key) {
#if defined(__x86_64__)
  if (has_avx512(isa)) return draw_avx512(draws, key);
#endif
  draw_portable(draws, key);
}

}  // namespace gavel::cpu
