#include "cpu/attention_units.h"

#include <algorithm>
#include <cstring>

namespace gavel::cpu {

UnitBlocks::UnitBlocks(const AttentionPlan& plan, int64_t rows)
    : index(static_cast<size_t>(plan.num_blocks), -1), covered(static_cast<size_t>(rows), 0) {
  for (int32_t unit = 0; unit < plan.num_units; ++unit) {
    begin.push_back(static_cast<int32_t>(ids.size()));
    const AttentionUnit& one = plan.units[unit];
    for (int32_t i = one.tile_begin; i < one.tile_end; ++i) add_tile(plan, plan.tiles[i]);
    most = std::max(most, static_cast<int32_t>(ids.size()) - begin.back());
    most_rows = std::max(most_rows, one.row_end - one.row_begin);
  }
  begin.push_back(static_cast<int32_t>(ids.size()));
}

void UnitBlocks::add_tile(const AttentionPlan& plan, const QueryTile& tile) {
  const int32_t tile_end = tile.row_begin + tile.row_count;
  for (int32_t row = tile.row_begin; row < tile_end; ++row) covered[static_cast<size_t>(row)] |= 1;
  for (int32_t begin = tile.row_begin, end; begin < tile_end; begin = end) {
    int32_t last = plan.row_keys[begin];
    for (end = begin + 1; end < tile_end && plan.row_tail[end] == plan.row_tail[begin]; ++end) {
      last = std::max(last, plan.row_keys[end]);
    }
    for (int32_t block = 0; block * kKeyBlock < last; ++block) {
      const int32_t id = block < tile.shared_count ? plan.block_ids[tile.shared_begin + block]
                                                   : plan.block_ids[plan.row_tail[begin] + block - tile.shared_count];
      int32_t& place = index[static_cast<size_t>(id)];
      if (place >= 0) continue;
      place = static_cast<int32_t>(ids.size()) - this->begin.back();
      ids.push_back(id);
      for (int32_t slot = 0; slot < kKeyBlock; ++slot) {
        const int32_t row = plan.block_rows[int64_t{id} * kKeyBlock + slot];
        if (row >= 0) covered[static_cast<size_t>(row)] |= 2;
      }
    }
  }
}

// Sixteen at a time: head sizes are multiples of it, and rows this short are not worth a call.
void widen(const Tensor& tensor, int64_t index, int32_t count, float* out) {
  for (int32_t i = 0; i < count; i += 16) {
    if (tensor.dtype == DType::f32) {
      std::memcpy(out + i, tensor.f32() + index + i, 16 * sizeof(float));
    } else {
      for (int32_t j = i; j < i + 16; ++j) out[j] = bf16_to_float(tensor.bf16()[index + j]);
    }
  }
}

void narrow(const float* values, int32_t count, const Tensor& tensor, int64_t index) {
  for (int32_t i = 0; i < count; i += 16) {
    if (tensor.dtype == DType::f32) {
      std::memcpy(tensor.f32() + index + i, values + i, 16 * sizeof(float));
    } else {
      for (int32_t j = i; j < i + 16; ++j) tensor.bf16()[index + j] = float_to_bf16(values[j]);
    }
  }
}

// A prompt row may stand in several blocks (the partial one is given to each completion): they are added to its first.
void write_key_gradients(const Attention& p, const UnitBlocks& blocks, int32_t unit_index, int32_t head,
                         const BlockSums& sums, int32_t* first_place) {
  const AttentionPlan& plan = *p.plan;
  const AttentionUnit& unit = plan.units[unit_index];
  const int32_t count = blocks.count(unit_index), head_dim = p.head_dim;
  const auto row_of = [&](int32_t place, int32_t slot) {
    return plan.block_rows[int64_t{blocks.ids_of(unit_index)[place]} * kKeyBlock + slot];
  };
  std::fill_n(first_place, unit.row_end - unit.row_begin, -1);
  for (int32_t place = 0; place < count; ++place) {
    for (int32_t slot = 0; slot < kKeyBlock; ++slot) {
      const int32_t row = row_of(place, slot);
      if (row < 0) continue;
      int32_t& first = first_place[row - unit.row_begin];
      if (first < 0) {
        first = place;
        continue;
      }
      // Blocks lie on one grid, so the slot is the same in all of them.
      for (int64_t d = slot * sums.width; d < slot * sums.width + head_dim; ++d) {
        sums.keys(first)[d] += sums.keys(place)[d];
        sums.values(first)[d] += sums.values(place)[d];
      }
    }
  }
  for (int32_t place = 0; place < count; ++place) {
    for (int32_t slot = 0; slot < kKeyBlock; ++slot) {
      const int32_t row = row_of(place, slot);
      if (row < 0 || first_place[row - unit.row_begin] != place) continue;
      const int64_t index = row * p.grad_qkv.cols() + int64_t{p.query_heads + head} * head_dim;
      float* keys = sums.keys(place) + slot * sums.width;
      for (int32_t d = 0; d < head_dim && sums.scale != 1.0f; ++d) keys[d] *= sums.scale;
      narrow(keys, head_dim, p.grad_qkv, index);
      narrow(sums.values(place) + slot * sums.width, head_dim, p.grad_qkv, index + int64_t{p.kv_heads} * head_dim);
    }
  }
}

}  // namespace gavel::cpu
