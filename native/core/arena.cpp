#include "core/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <string>

#include "core/memory.h"

namespace gavel {
namespace {
constexpr size_t kHugePage = size_t{2} << 20;
// A measuring arena hands out addresses in a range no mapping can have, so a stray touch faults at once.
uint8_t* const kNowhere = reinterpret_cast<uint8_t*>(uintptr_t{1} << 62);
size_t page_size_of(size_t size_bytes) {
  return std::max(kHugePage, (size_bytes + kHugePage - 1) / kHugePage * kHugePage);
}
}  // namespace

void* allocate_pages(size_t size_bytes) {
  const size_t size = page_size_of(size_bytes);
  void* raw =
      mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  const uintptr_t start = reinterpret_cast<uintptr_t>(raw);
  const uintptr_t aligned = (start + kHugePage - 1) / kHugePage * kHugePage;
  if (aligned > start) munmap(raw, aligned - start);
  const uintptr_t tail = start + kHugePage - aligned;
  if (tail > 0) munmap(reinterpret_cast<void*>(aligned + size), tail);
  madvise(reinterpret_cast<void*>(aligned), size, MADV_HUGEPAGE);
  return reinterpret_cast<void*>(aligned);
}

void free_pages(void* data, size_t size_bytes) {
  if (data != nullptr) munmap(data, page_size_of(size_bytes));
}

Arena::~Arena() { release(); }

Status Arena::reserve(size_t size_bytes) {
  if (size_bytes <= capacity_) return Status::success();
  if (used_ != 0) return Status::error(Code::internal, "Expected an empty arena when it grows.");
  release();
  const std::string advice = "Use smaller micro-batches, shorter completions or activation checkpointing.";
  if (!planning_) GAVEL_RETURN_IF_ERROR(check_memory(size_bytes, "activations", advice));
  void* data = allocate_pages(size_bytes);
  if (data == nullptr) {
    return Status::error(Code::out_of_memory, "Expected " + std::to_string(size_bytes) +
                                                  " bytes for activations but the system refused them. " + advice)
        .with("requestedBytes", std::to_string(size_bytes));
  }
  base_ = static_cast<uint8_t*>(data);
  capacity_ = size_bytes;
  return Status::success();
}

void Arena::release() {
  free_pages(base_, capacity_);
  base_ = nullptr;
  capacity_ = used_ = 0;
}

void* Arena::allocate(size_t size_bytes) {
  const size_t size = (size_bytes + 63) / 64 * 64;
  const size_t start = used_;
  used_ += size;
  peak_ = std::max(peak_, used_);
  if (measuring_) return kNowhere + start;
  if (used_ > capacity_) {
    overflowed_ = true;
    return nullptr;
  }
  return base_ + start;
}

Tensor Arena::tensor(Shape shape, DType dtype) {
  Tensor result;
  result.shape = shape;
  result.dtype = dtype;
  // A tensor without elements still gets an address: null means "absent" to every op.
  result.data = allocate(std::max<size_t>(static_cast<size_t>(shape.count()) * dtype_size(dtype), 64));
  return result;
}

}  // namespace gavel
