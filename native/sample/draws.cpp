#include "sample/draws.h"

namespace gavel::sampling {

Draws::~Draws() {
  if (!memory_.on_device()) return;
  if (host_ != nullptr) memory_.device().release_host(host_);
  for (const Device::Mark mark : sent_) memory_.device().release_mark(mark);
}

Status Draws::reserve(const TensorMemory& memory, int64_t rows) {
  memory_ = memory;
  list_bytes_ = static_cast<size_t>(rows) * sizeof(float);
  GAVEL_RETURN_IF_ERROR(
      drawn_.reserve(memory, kLists * list_bytes_, "drawn tokens", "Use fewer rows at once (`maxRows`)."));
  if (!memory.on_device()) return Status::success();
  host_ = static_cast<uint8_t*>(memory.device().allocate_host(kTurns * kSent * list_bytes_));
  return host_ != nullptr ? Status::success() : memory.finish();
}

void Draws::send(int turn) {
  if (!memory_.on_device()) return;
  const size_t size = kSent * list_bytes_;
  memory_.device().copy_out(host_ + static_cast<size_t>(turn) * size, drawn_.data(), size);
  memory_.device().mark(sent_[turn]);
}

Draws::Results Draws::receive(int turn) {
  uint8_t* lists = drawn_.data();
  if (memory_.on_device()) {
    memory_.device().wait(sent_[turn]);
    lists = host_ + static_cast<size_t>(turn) * kSent * list_bytes_;
  }
  return {at<int32_t>(lists, 0), at<float>(lists, 1), at<float>(lists, 2)};
}

}  // namespace gavel::sampling
