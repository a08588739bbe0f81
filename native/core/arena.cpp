#include "core/arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "core/memory.h"

namespace gavel {
namespace {
constexpr const char* kAdvice = "Use smaller micro-batches, shorter completions or activation checkpointing.";
constexpr size_t kHugePage = size_t{2} << 20;
// A measuring arena hands out addresses in a range no mapping can have, so a stray touch faults at once.
uint8_t* const kNowhere = reinterpret_cast<uint8_t*>(uintptr_t{1} << 62);

size_t small_page() {
  static const size_t size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return size;
}
size_t round_to(size_t size, size_t page) { return (size + page - 1) / page * page; }
// Half a huge page or more is rounded up to one; a smaller rest is small pages, of which nothing is wasted.
size_t page_size_of(size_t size_bytes) {
  const bool huge = size_bytes % kHugePage >= kHugePage / 2;
  return std::max(small_page(), round_to(size_bytes, huge ? kHugePage : small_page()));
}
}  // namespace

void* allocate_pages(size_t size_bytes) {
  const size_t size = page_size_of(size_bytes), spare = size < kHugePage ? 0 : kHugePage;
  void* raw = mmap(nullptr, size + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  if (spare == 0) return raw;
  const uintptr_t start = reinterpret_cast<uintptr_t>(raw);
  const uintptr_t aligned = round_to(start, kHugePage);
  if (aligned > start) munmap(raw, aligned - start);
  const uintptr_t tail = start + kHugePage - aligned;
  if (tail > 0) munmap(reinterpret_cast<void*>(aligned + size), tail);
#if defined(MADV_HUGEPAGE)
  madvise(reinterpret_cast<void*>(aligned), size, MADV_HUGEPAGE);
#endif
  return reinterpret_cast<void*>(aligned);
}

void free_pages(void* data, size_t size_bytes) {
  if (data != nullptr) munmap(data, page_size_of(size_bytes));
}

void give_back_pages(void* data, size_t size_bytes) {
  const uintptr_t start = reinterpret_cast<uintptr_t>(data), begin = round_to(start, small_page());
  const uintptr_t end = (start + size_bytes) / small_page() * small_page();
#if defined(__linux__)
  constexpr int kAdvice = MADV_DONTNEED;
#else
  constexpr int kAdvice = MADV_FREE;
#endif
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, kAdvice);
}

Status Pages::reserve(const TensorMemory& memory, size_t size_bytes, const char* purpose, const char* advice) {
  memory_ = memory;
  GAVEL_RETURN_IF_ERROR(memory.allocate(size_bytes, purpose, advice, &data_));
  size_ = size_bytes;
  return Status::success();
}

Arena::~Arena() { release(); }

void Arena::set_measuring(bool measuring) {
  measuring_ = measuring;
  if (memory_.on_device()) memory_.device().set_measuring(measuring);
}

// What kernels will want is taken with it.
Status Arena::reserve_on_device(size_t size_bytes) {
  if (size_bytes > capacity_) {
    release();
    GAVEL_RETURN_IF_ERROR(memory_.allocate(size_bytes, "activations", kAdvice, &base_));
    mapped_ = capacity_ = size_bytes;
  }
  offer(&memory_.device());
  return memory_.device().reserve();
}

Status Arena::reserve(size_t size_bytes) {
  if (size_bytes > capacity_ && used_ != 0)
    return Status::error(Code::internal, "Expected an empty arena when it grows.");
  if (memory_.on_device()) return reserve_on_device(size_bytes);
  if (size_bytes <= capacity_) return Status::success();
  if (size_bytes > mapped_) release();
  // What this arena holds was counted: only others can give back.
  withdraw();
  if (!planning_) GAVEL_RETURN_IF_ERROR(check_memory(size_bytes - capacity_, "activations", kAdvice));
  if (base_ == nullptr) {
    // Batches grow a little at a time: spare addresses, which hold nothing, save mapping them all anew.
    const size_t mapped = size_bytes + size_bytes / 4;
    base_ = static_cast<uint8_t*>(allocate_pages(mapped));
    if (base_ == nullptr) {
      return Status::error(Code::out_of_memory, "Expected " + std::to_string(size_bytes) +
                                                    " bytes for activations but the system refused them. " + kAdvice)
          .with("requestedBytes", std::to_string(size_bytes));
    }
    mapped_ = mapped;
  }
  capacity_ = size_bytes;
  if (!planning_) offer();
  return Status::success();
}

void Arena::shrink(size_t size_bytes) {
  if (size_bytes >= capacity_ || used_ != 0) return;
  if (memory_.on_device()) return release();
  if (size_bytes == 0) withdraw();
  // A part of a huge page would split it.
  const size_t kept = std::min(capacity_, round_to(size_bytes, kHugePage));
  give_back_pages(base_ + kept, capacity_ - kept);
  capacity_ = size_bytes;
}

void Arena::release() {
  withdraw();
  memory_.release(base_, mapped_);
  base_ = nullptr;
  mapped_ = capacity_ = used_ = 0;
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
