// What both forms of the attention backward share: which key blocks a unit touches, and how their sums become
// gradients.
#pragma once
#include <cstdint>
#include <vector>

#include "ops/attention.h"

namespace gavel::cpu {

// Blocks of each unit in the order its rows first meet them.
struct UnitBlocks {
  std::vector<int32_t> begin;  // [units + 1] into ids
  std::vector<int32_t> ids;
  std::vector<int32_t> index;  // [num_blocks]: place of a block within its unit
  int32_t most = 0;
  int32_t most_rows = 0;
  std::vector<uint8_t> covered;  // [T]: 1 the row stands in a tile, 2 in a block that a tile reads

  UnitBlocks(const AttentionPlan& plan, int64_t rows);
  int32_t count(int32_t unit) const { return begin[static_cast<size_t>(unit) + 1] - begin[static_cast<size_t>(unit)]; }
  const int32_t* ids_of(int32_t unit) const { return ids.data() + begin[static_cast<size_t>(unit)]; }

 private:
  void add_tile(const AttentionPlan& plan, const QueryTile& tile);
};

// dK, then dV of every block of a unit, 64 rows of `width` floats each; dK is still to be multiplied by `scale`.
struct BlockSums {
  float* data;
  int64_t width;
  float scale;

  float* keys(int32_t place) const { return data + 2 * kKeyBlock * width * place; }
  float* values(int32_t place) const { return keys(place) + kKeyBlock * width; }
};

// Writes the gradients of the keys and values of key-value head `head`; first_place is scratch, one per row of the
// unit.
void write_key_gradients(const Attention& p, const UnitBlocks& blocks, int32_t unit, int32_t head,
                         const BlockSums& sums, int32_t* first_place);

// Sixteen at a time: head sizes are multiples of it, and rows this short are not worth a call.
void widen(const Tensor& tensor, int64_t index, int32_t count, float* out);
void narrow(const float* values, int32_t count, const Tensor& tensor, int64_t index);

}  // namespace gavel::cpu
