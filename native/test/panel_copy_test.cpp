// Moves into and out of the stored order against its definition, panel_index, element by element.
#include "model/panel_copy.h"

#include <bit>
#include <cstring>
#include <vector>

#include "core/dtype.h"
#include "test/check.h"

namespace gavel::test {
namespace {

struct Stored {
  DType dtype, order;
};

int64_t index_of(const Tensor& tensor, DType order, int64_t row, int64_t col) {
  if (tensor.shape.rank == 1) return row;
  if (tensor.layout == Layout::rows) return row * tensor.cols() + col;
  return panel_index(row, col, tensor.cols(), order);
}

float element(const Tensor& tensor, int64_t index) {
  return tensor.dtype == DType::bf16 ? bf16_to_float(tensor.bf16()[index]) : tensor.f32()[index];
}

// Exact in bf16, and different for neighbours.
float value_at(int64_t row, int64_t col) { return static_cast<float>((row * 37 + col * 11) % 251 - 125); }

void check_block(const Tensor& shape, Stored stored, const TensorBlock& block) {
  Tensor tensor = shape;
  tensor.dtype = stored.dtype;
  const bool matrix = tensor.shape.rank == 2;
  const int64_t count = matrix ? panel_count(tensor.rows(), tensor.cols()) : tensor.shape[0];
  constexpr uint8_t kUntouched = 0x41;
  std::vector<uint8_t> bytes(static_cast<size_t>(count) * dtype_size(stored.dtype), kUntouched);
  std::vector<uint8_t> before = bytes;
  tensor.data = bytes.data();
  std::vector<float> values(static_cast<size_t>(block.rows * block.cols)), back(values.size(), -1.0f);
  for (int64_t row = 0; row < block.rows; ++row) {
    for (int64_t col = 0; col < block.cols; ++col) {
      values[static_cast<size_t>(row * block.cols + col)] = value_at(row, col);
    }
  }
  write_block(tensor, stored.order, block, values.data());
  std::vector<uint8_t> written(static_cast<size_t>(count), 0);
  for (int64_t row = 0; row < block.rows; ++row) {
    for (int64_t col = 0; col < block.cols; ++col) {
      const int64_t index = index_of(tensor, stored.order, block.row_begin + row, block.col_begin + col);
      written[static_cast<size_t>(index)] = 1;
      if (element(tensor, index) != value_at(row, col)) {
        fail(__FILE__, __LINE__, "element " + std::to_string(row) + ", " + std::to_string(col));
        return;
      }
    }
  }
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (written[i / dtype_size(stored.dtype)] == 0 && bytes[i] != before[i]) {
      fail(__FILE__, __LINE__, "byte " + std::to_string(i) + " outside the block changed");
      return;
    }
  }
  read_block(tensor, stored.order, block, back.data());
  CHECK(std::memcmp(values.data(), back.data(), values.size() * sizeof(float)) == 0);
  std::vector<uint8_t> raw(values.size() * dtype_size(stored.dtype));
  read_stored(tensor, stored.order, block, raw.data());
  before.assign(bytes.size(), kUntouched);
  tensor.data = before.data();
  write_stored(tensor, stored.order, block, raw.data());
  CHECK(before == bytes);
}

}  // namespace

TEST("blocks of any rows and columns go into panels and back, and nothing beside them changes") {
  constexpr Stored kStored[] = {
      {DType::f32, DType::f32}, {DType::bf16, DType::bf16}, {DType::f32, DType::bf16}, {DType::bf16, DType::f32}};
  constexpr TensorBlock kBlocks[] = {{0, 0, 96, 80},  {0, 0, 70, 67},   {16, 0, 32, 40},  {5, 0, 61, 80},
                                     {33, 2, 40, 34}, {48, 16, 16, 64}, {7, 3, 50, 33},   {64, 79, 32, 1},
                                     {31, 1, 2, 2},   {0, 0, 1, 80},    {32, 48, 64, 32}, {0, 0, 16, 8}};
  for (const Stored stored : kStored) {
    for (const TensorBlock& block : kBlocks) {
      check_block({nullptr, {96, 80}, DType::f32, Layout::panels, 0}, stored, block);
      check_block({nullptr, {96, 80}, DType::f32, Layout::rows, 0}, stored, block);
      // Odd columns: the last pair of a row is half padding.
      check_block({nullptr, {96, 81}, DType::f32, Layout::panels, 0}, stored, block);
    }
    check_block({nullptr, {9000}, DType::f32, Layout::rows, 0}, stored, {0, 0, 9000, 1});
    check_block({nullptr, {9000}, DType::f32, Layout::rows, 0}, stored, {100, 0, 4500, 1});
  }
}

TEST("fp32 is rounded to bf16 to nearest even as it is written") {
  std::vector<bf16_t> bits(64);
  const Tensor tensor{bits.data(), {32, 2}, DType::bf16, Layout::panels, 0};
  std::vector<float> values(64);
  for (size_t i = 0; i < values.size(); ++i) values[i] = 1.0f + static_cast<float>(i) * 0x1p-9f;
  write_block(tensor, DType::bf16, {0, 0, 32, 2}, values.data());
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t at = panel_index(static_cast<int64_t>(i / 2), static_cast<int64_t>(i % 2), 2, DType::bf16);
    CHECK_EQ(bits[static_cast<size_t>(at)], float_to_bf16(values[i]));
  }
}

}  // namespace gavel::test
