#include "model/panel_copy.h"

#include <algorithm>
#include <cstring>

#include "core/context.h"
#include "cpu/transpose.h"

namespace gavel {
namespace {

// Units of a tile: 64 steps of a panel are 8 KiB, which stay in the nearest cache while lanes are filled.
constexpr int64_t kTileUnits = 64;
constexpr int64_t kTileRows = 32, kTileCols = 128;

bool has_fast_transpose() {
#if defined(__x86_64__)
  static const bool fast = has_avx512(detect_isa());
  return fast;
#else
  return false;
#endif
}

// 16 lanes of a panel against 16 rows, in words of 32 bits; both go 16 (or a multiple of 8) columns at a time.
void rows_to_lanes(const uint8_t* rows, int64_t row_bytes, int64_t words, uint8_t* lanes) {
#if defined(__x86_64__)
  const uint32_t* pointers[16];
  for (int i = 0; i < 16; ++i) pointers[i] = reinterpret_cast<const uint32_t*>(rows + i * row_bytes);
  cpu::transpose_rows(pointers, static_cast<int32_t>(words), reinterpret_cast<uint32_t*>(lanes), kPanel);
#else
  static_cast<void>(rows), static_cast<void>(row_bytes), static_cast<void>(words), static_cast<void>(lanes);
#endif
}

void lanes_to_rows(const uint8_t* lanes, int64_t words, uint8_t* rows, int64_t row_bytes) {
#if defined(__x86_64__)
  for (int64_t word = 0; word < words; word += 16) {
    const uint32_t* pointers[16];
    for (int i = 0; i < 16; ++i) pointers[i] = reinterpret_cast<const uint32_t*>(lanes) + (word + i) * kPanel;
    cpu::transpose_rows(pointers, 16, reinterpret_cast<uint32_t*>(rows) + word, row_bytes / 4);
  }
#else
  static_cast<void>(lanes), static_cast<void>(words), static_cast<void>(rows), static_cast<void>(row_bytes);
#endif
}

// A unit is what one lane takes of a panel's step: a pair of a bf16 order, one element of an fp32 order.
template <class Unit, bool writing>
void move_units(uint8_t* lane, uint8_t* row, int64_t begin, int64_t end) {
  for (int64_t unit = begin; unit < end; ++unit) {
    uint8_t* stored = lane + unit * kPanel * static_cast<int64_t>(sizeof(Unit));
    uint8_t* plain = row + unit * static_cast<int64_t>(sizeof(Unit));
    std::memcpy(writing ? stored : plain, writing ? plain : stored, sizeof(Unit));
  }
}

// `panels` begins at the block's first column of panel 0.
template <class Unit, bool writing>
void move_panels(uint8_t* panels, int64_t panel_bytes, const TensorBlock& block, int64_t units, uint8_t* data,
                 int64_t row_bytes) {
  const bool fast = sizeof(Unit) == 4 && row_bytes % 4 == 0 && has_fast_transpose();
  const int64_t whole = writing ? units / 8 * 8 : units / 16 * 16;
  for (int64_t row = 0; row < block.rows;) {
    const int64_t at = block.row_begin + row, lane = at % kPanel;
    const int64_t count = std::min({block.rows - row, kPanel - lane, int64_t{16} - lane % 16});
    uint8_t* first = panels + at / kPanel * panel_bytes + lane * static_cast<int64_t>(sizeof(Unit));
    uint8_t* plain = data + row * row_bytes;
    const int64_t moved = fast && count == 16 ? whole : 0;
    if (moved > 0 && writing) rows_to_lanes(plain, row_bytes, moved, first);
    if (moved > 0 && !writing) lanes_to_rows(first, moved, plain, row_bytes);
    for (int64_t begin = moved; begin < units; begin += kTileUnits) {
      for (int64_t i = 0; i < count; ++i) {
        move_units<Unit, writing>(first + i * static_cast<int64_t>(sizeof(Unit)), plain + i * row_bytes, begin,
                                  std::min(units, begin + kTileUnits));
      }
    }
    row += count;
  }
}

template <bool writing>
void move_elements(uint8_t* stored, int64_t size, DType order, int64_t total_cols, const TensorBlock& block,
                   int64_t col_begin, uint8_t* data) {
  for (int64_t row = 0; row < block.rows; ++row) {
    for (int64_t col = col_begin; col < block.cols; ++col) {
      uint8_t* element = stored + panel_index(block.row_begin + row, block.col_begin + col, total_cols, order) * size;
      uint8_t* plain = data + (row * block.cols + col) * size;
      std::memcpy(writing ? element : plain, writing ? plain : element, static_cast<size_t>(size));
    }
  }
}

template <bool writing>
void move_rows(uint8_t* stored, int64_t size, int64_t total_cols, const TensorBlock& block, uint8_t* data) {
  const bool whole = block.cols == total_cols;
  const int64_t rows = whole ? 1 : block.rows, bytes = (whole ? block.rows : 1) * block.cols * size;
  for (int64_t row = 0; row < rows; ++row) {
    uint8_t* element = stored + ((block.row_begin + row) * total_cols + block.col_begin) * size;
    uint8_t* plain = data + row * block.cols * size;
    std::memcpy(writing ? element : plain, writing ? plain : element, static_cast<size_t>(bytes));
  }
}

template <bool writing>
void move_block(const Tensor& tensor, DType order, const TensorBlock& block, uint8_t* data) {
  auto* stored = static_cast<uint8_t*>(tensor.data);
  const auto size = static_cast<int64_t>(dtype_size(tensor.dtype));
  const int64_t total_cols = tensor.shape.rank == 1 ? 1 : tensor.cols();
  if (block.rows == 0 || block.cols == 0) return;
  if (tensor.layout == Layout::rows) return move_rows<writing>(stored, size, total_cols, block, data);
  const int64_t per_unit = order == DType::bf16 ? 2 : 1;
  if (block.col_begin % per_unit != 0) return move_elements<writing>(stored, size, order, total_cols, block, 0, data);
  const int64_t units = block.cols / per_unit, unit_bytes = per_unit * size;
  uint8_t* panels = stored + block.col_begin / per_unit * kPanel * unit_bytes;
  const int64_t panel_bytes = kPanel * round_up(total_cols, 2) * size, row_bytes = block.cols * size;
  if (unit_bytes == 8) {
    move_panels<uint64_t, writing>(panels, panel_bytes, block, units, data, row_bytes);
  } else if (unit_bytes == 4) {
    move_panels<uint32_t, writing>(panels, panel_bytes, block, units, data, row_bytes);
  } else {
    move_panels<uint16_t, writing>(panels, panel_bytes, block, units, data, row_bytes);
  }
  if (units * per_unit < block.cols) {
    move_elements<writing>(stored, size, order, total_cols, block, units * per_unit, data);
  }
}

// Tiles of bf16 beside the fp32 values.
template <class Visit>
void each_tile(const TensorBlock& block, const Visit& visit) {
  const int64_t tile_cols = block.cols == 1 ? 1 : kTileCols, tile_rows = block.cols == 1 ? kTileCols * 32 : kTileRows;
  for (int64_t row = 0; row < block.rows; row += tile_rows) {
    for (int64_t col = 0; col < block.cols; col += tile_cols) {
      visit(row, col,
            TensorBlock{block.row_begin + row, block.col_begin + col, std::min(tile_rows, block.rows - row),
                        std::min(tile_cols, block.cols - col)});
    }
  }
}

}  // namespace

void write_stored(const Tensor& to, DType order, const TensorBlock& block, const void* data) {
  move_block<true>(to, order, block, static_cast<uint8_t*>(const_cast<void*>(data)));
}

void read_stored(const Tensor& from, DType order, const TensorBlock& block, void* data) {
  move_block<false>(from, order, block, static_cast<uint8_t*>(data));
}

void write_block(const Tensor& to, DType order, const TensorBlock& block, const float* data) {
  if (to.dtype == DType::f32) return write_stored(to, order, block, data);
  each_tile(block, [&](int64_t row, int64_t col, const TensorBlock& tile) {
    alignas(64) bf16_t values[kTileRows * kTileCols];
    for (int64_t r = 0; r < tile.rows; ++r) {
      const float* from = data + (row + r) * block.cols + col;
      for (int64_t c = 0; c < tile.cols; ++c) values[r * tile.cols + c] = float_to_bf16(from[c]);
    }
    write_stored(to, order, tile, values);
  });
}

void read_block(const Tensor& from, DType order, const TensorBlock& block, float* data) {
  if (from.dtype == DType::f32) return read_stored(from, order, block, data);
  each_tile(block, [&](int64_t row, int64_t col, const TensorBlock& tile) {
    alignas(64) bf16_t values[kTileRows * kTileCols];
    read_stored(from, order, tile, values);
    for (int64_t r = 0; r < tile.rows; ++r) {
      float* to = data + (row + r) * block.cols + col;
      for (int64_t c = 0; c < tile.cols; ++c) to[c] = bf16_to_float(values[r * tile.cols + c]);
    }
  });
}

}  // namespace gavel
