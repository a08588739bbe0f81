// Element access in double for the reference kernels, whatever dtype and layout. Plain and slow on purpose.
#pragma once
#include "core/tensor.h"

namespace gavel::reference {

inline double load(const Tensor& tensor, int64_t index) {
  if (tensor.dtype == DType::bf16) return bf16_to_float(tensor.bf16()[index]);
  if (tensor.dtype == DType::i32) return tensor.i32()[index];
  return tensor.f32()[index];
}

inline void store(const Tensor& tensor, int64_t index, double value) {
  if (tensor.dtype == DType::bf16) {
    tensor.bf16()[index] = float_to_bf16(static_cast<float>(value));
  } else {
    tensor.f32()[index] = static_cast<float>(value);
  }
}

inline void put(const Tensor& tensor, int64_t index, double value, bool accumulate) {
  store(tensor, index, accumulate ? load(tensor, index) + value : value);
}

// Where element (row, column) lies; `order` is the dtype that a panel layout was packed for.
inline int64_t place(const Tensor& tensor, int64_t row, int64_t column, DType order) {
  if (tensor.layout == Layout::panels) return panel_index(row, column, tensor.cols(), order);
  return row * tensor.cols() + column;
}

}  // namespace gavel::reference
