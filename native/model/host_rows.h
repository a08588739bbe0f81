// Rows of a stored tensor where host code can reach them: the tensor itself in the process's memory; of one on a device
// a copy of the contiguous part that holds them, which is one panel or more of packed matrices.
#pragma once
#include <mutex>
#include <vector>

#include "core/tensor.h"
#include "core/tensor_memory.h"

namespace gavel {

class HostRows {
 public:
  enum class Use : uint8_t { read, write };  // write: read too, and others wait until this one is gone
  HostRows(const TensorMemory& memory, const Tensor& tensor, int64_t row_begin, int64_t rows, Use use);
  // All rows.
  HostRows(const TensorMemory& memory, const Tensor& tensor, Use use)
      : HostRows(memory, tensor, 0, tensor.shape[0], use) {}
  HostRows(const HostRows&) = delete;
  HostRows& operator=(const HostRows&) = delete;
  // Puts back what was written.
  ~HostRows();

  // Row 0 of it is row `first_row` of the whole, and element 0 element `first_element`.
  const Tensor& tensor() const { return view_; }
  int64_t first_row() const { return first_row_; }
  int64_t first_element() const { return first_element_; }
  int64_t elements() const { return elements_; }

 private:
  const TensorMemory memory_;
  Tensor view_;
  std::unique_lock<std::recursive_mutex> lock_;
  std::vector<uint8_t> copy_;
  uint8_t* whole_ = nullptr;  // where the copy came from
  int64_t first_row_ = 0, first_element_ = 0, elements_ = 0;
};

}  // namespace gavel
