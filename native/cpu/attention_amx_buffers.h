// What a worker of the attention backward on AMX tiles holds: the blocks of a unit, a chunk of queries and what passes
// between their products.
#pragma once
#include <algorithm>

#include "cpu/attention_units.h"

namespace gavel::cpu {

inline constexpr int32_t kChunkQueries = 128;

struct AmxBuffers {
  int64_t width = 0, tile = 0;  // head_dim rounded up; elements of a [64, width] matrix
  int32_t queries = 0;
  bf16_t* blocks = nullptr;                      // per block: K, V [64][width], K^T [width][64]
  float* sums = nullptr;                         // per block: dK, dV
  bf16_t *query = nullptr, *grad_out = nullptr;  // [queries][width]
  // Right operands lie in panels of 32 columns: [queries / 32][width / 2][32] and [width / 32][queries / 2][32].
  uint32_t *query_words = nullptr, *grad_out_words = nullptr, *query_pairs = nullptr, *grad_out_pairs = nullptr;
  float *grad_query = nullptr, *grad_query_rows = nullptr;  // [queries / 32][width][32], and [queries][width]
  float *scores = nullptr, *gradients = nullptr;            // [2][64][32]
  bf16_t *p = nullptr, *ds = nullptr;                       // [2][queries / 32][64][32]
  uint32_t* ds_pairs = nullptr;                             // [2][queries / 32][32][32]
  float *lse = nullptr, *mean = nullptr;
  int32_t *seen = nullptr, *first_place = nullptr;

  // Lays the buffers out from `memory` on (counts only when it is null); returns the bytes taken.
  size_t lay_out(uint8_t* memory, const Attention& attention, const UnitBlocks& unit_blocks) {
    size_t used = 0;
    const auto take = [&]<class T>(T*& pointer, int64_t count) {
      pointer = memory == nullptr ? nullptr : reinterpret_cast<T*>(memory + used);
      used += static_cast<size_t>(round_up(count * static_cast<int64_t>(sizeof(T)), 64));
    };
    width = round_up(attention.head_dim, 32);
    tile = kKeyBlock * width;
    queries = static_cast<int32_t>(round_up(std::max(kChunkQueries, attention.query_heads / attention.kv_heads), 32));
    take(blocks, 3 * tile * unit_blocks.most);
    take(sums, 2 * tile * unit_blocks.most);
    take(query, queries * width);
    take(grad_out, queries * width);
    for (uint32_t** words : {&query_words, &grad_out_words, &query_pairs, &grad_out_pairs}) {
      take(*words, queries * width / 2);
    }
    take(grad_query, queries * width);
    take(grad_query_rows, queries * width);
    take(scores, 2 * kKeyBlock * 32);
    take(gradients, 2 * kKeyBlock * 32);
    take(p, int64_t{2} * kKeyBlock * queries);
    take(ds, int64_t{2} * kKeyBlock * queries);
    take(ds_pairs, int64_t{kKeyBlock} * queries);
    take(lse, queries);
    take(mean, queries);
    take(seen, queries);
    take(first_place, unit_blocks.most_rows);
    return used;
  }
  bf16_t* keys(int32_t place) const { return blocks + 3 * tile * place; }
  bf16_t* values(int32_t place) const { return keys(place) + tile; }
  bf16_t* keys_transposed(int32_t place) const { return keys(place) + 2 * tile; }
};

}  // namespace gavel::cpu
