#include "core/tensor_memory.h"

#include <cstring>

#include "core/arena.h"
#include "core/context.h"
#include "core/memory.h"
#include "core/spare_memory.h"

namespace gavel {

TensorMemory::TensorMemory(const Context& context) : device_(context.planning ? nullptr : context.device) {}

size_t TensorMemory::available() const {
  return device_ == nullptr ? available_memory() : static_cast<size_t>(device_->free_bytes());
}

Status TensorMemory::check(size_t requested, const std::string& what, const std::string& advice) const {
  if (device_ == nullptr) return check_memory(requested, what, advice);
  size_t free = available();
  if (requested > free && give_back_spare_memory(device_)) free = available();
  GAVEL_RETURN_IF_ERROR(finish());
  if (requested <= free) return Status::success();
  return Status::error(Code::out_of_memory, "Expected " + std::to_string(requested) + " bytes of the device for " +
                                                what + " but " + std::to_string(free) + " are free. " + advice)
      .with("requestedBytes", std::to_string(requested))
      .with("availableBytes", std::to_string(free));
}

Status TensorMemory::allocate(size_t size_bytes, const std::string& what, const std::string& advice,
                              uint8_t** data) const {
  if (device_ == nullptr) {
    *data = static_cast<uint8_t*>(allocate_pages(size_bytes));
    if (*data != nullptr) return Status::success();
    return Status::error(Code::out_of_memory, "Expected " + std::to_string(size_bytes) + " bytes for " + what +
                                                  " but the system refused them. " + advice)
        .with("requestedBytes", std::to_string(size_bytes));
  }
  GAVEL_RETURN_IF_ERROR(check(size_bytes, what, advice));
  *data = static_cast<uint8_t*>(device_->allocate(size_bytes));
  return *data != nullptr ? Status::success() : finish();
}

void TensorMemory::release(void* data, size_t size_bytes) const {
  if (data == nullptr) return;
  if (device_ == nullptr) {
    free_pages(data, size_bytes);
  } else {
    device_->release(data);
  }
}

void TensorMemory::copy(void* to, const void* from, size_t size_bytes) const {
  if (device_ != nullptr) return device_->copy(to, from, size_bytes);
  if (size_bytes > 0) std::memcpy(to, from, size_bytes);
}

void TensorMemory::clear(void* to, size_t size_bytes) const {
  if (device_ != nullptr) return device_->clear(to, size_bytes);
  if (size_bytes > 0) std::memset(to, 0, size_bytes);
}

void TensorMemory::upload(void* to, const void* from, size_t size_bytes) const {
  if (device_ != nullptr) return device_->upload(to, from, size_bytes);
  if (size_bytes > 0) std::memcpy(to, from, size_bytes);
}

void TensorMemory::download(void* to, const void* from, size_t size_bytes) const {
  if (device_ == nullptr) {
    if (size_bytes > 0) std::memcpy(to, from, size_bytes);
    return;
  }
  const Transfer one{to, from, size_bytes};
  device_->download({&one, 1});
}

void TensorMemory::download(const std::vector<Transfer>& transfers) const {
  if (device_ != nullptr) return device_->download(transfers);
  for (const Transfer& one : transfers) {
    if (one.size_bytes > 0) std::memcpy(one.to, one.from, one.size_bytes);
  }
}

}  // namespace gavel
