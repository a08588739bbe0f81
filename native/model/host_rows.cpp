#include "model/host_rows.h"

#include <algorithm>

namespace gavel {

HostRows::HostRows(const TensorMemory& memory, const Tensor& tensor, int64_t row_begin, int64_t rows, Use use)
    : memory_(memory), view_(tensor) {
  const bool matrix = tensor.shape.rank > 1, panels = tensor.layout == Layout::panels;
  const int64_t width = !matrix ? 1 : panels ? round_up(tensor.cols(), 2) : tensor.cols();
  const int64_t stored = panels ? round_up(tensor.shape[0], kPanel) : tensor.shape[0];
  elements_ = stored * width;
  if (!memory.on_device()) return;
  const int64_t unit = panels ? kPanel : 1;
  first_row_ = row_begin / unit * unit;
  const int64_t end = std::min(stored, round_up(row_begin + rows, unit));
  const auto size = static_cast<int64_t>(dtype_size(tensor.dtype));
  first_element_ = first_row_ * width;
  elements_ = (end - first_row_) * width;
  if (use == Use::write) lock_ = std::unique_lock(memory.device().pieces());
  uint8_t* const at = static_cast<uint8_t*>(tensor.data) + first_element_ * size;
  copy_.resize(static_cast<size_t>(elements_ * size));
  memory.download(copy_.data(), at, copy_.size());
  if (use == Use::write) whole_ = at;
  view_.data = copy_.data();
  view_.shape.dims[0] = std::min(end, tensor.shape[0]) - first_row_;
}

HostRows::~HostRows() {
  if (whole_ != nullptr) memory_.upload(whole_, copy_.data(), copy_.size());
}

}  // namespace gavel
