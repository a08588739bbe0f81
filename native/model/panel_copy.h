// Moves between row-major values and the order in which a parameter is stored. Rows of different calls may be written
// at the same time by different threads. Pure moves: the instruction set changes the speed, never a bit.
#pragma once
#include <cstdint>

#include "core/tensor.h"

namespace gavel {

// Rows and columns of a stored matrix; a vector's rows are its elements, and it has one column.
struct TensorBlock {
  int64_t row_begin = 0, col_begin = 0, rows = 0, cols = 0;
};

// `order` is the dtype of the weight, whose order its fp32 gradient, master and moments share; `data` is [rows, cols].
// fp32 is rounded to the tensor's dtype as it is written.
void write_block(const Tensor& to, DType order, const TensorBlock& block, const float* data);
void read_block(const Tensor& from, DType order, const TensorBlock& block, float* data);

// The same for values that already have the tensor's dtype.
void write_stored(const Tensor& to, DType order, const TensorBlock& block, const void* data);
void read_stored(const Tensor& from, DType order, const TensorBlock& block, void* data);

}  // namespace gavel
