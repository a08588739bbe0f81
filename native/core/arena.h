// Stack allocator for activations: one reservation, marks and resets, nothing freed one by one. Memory is aligned to 64
// bytes. In measuring mode it hands out addresses that are never touched and only counts: the plan of a step.
// One thread (the job thread) uses an arena.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/spare_memory.h"
#include "core/status.h"
#include "core/tensor.h"
#include "core/tensor_memory.h"

namespace gavel {

class Arena final : public SpareMemory {
 public:
  ~Arena() override;

  // Grows the reservation to at least `size_bytes`; only while nothing is allocated. Fails with out_of_memory.
  Status reserve(size_t size_bytes);
  // Gives memory past `size_bytes` back to the system, but keeps its addresses; only while nothing is allocated.
  void shrink(size_t size_bytes);
  void release();
  // What another model's pass, or this one's next, may have while nothing is allocated.
  void give_back() override { shrink(0); }

  // The reservation is never filled, so the memory that is there does not bound it.
  void set_planning(bool planning) { planning_ = planning; }
  // Where the reservation lives; before the first.
  const TensorMemory& memory() const { return memory_; }
  void set_memory(const TensorMemory& memory) { memory_ = memory; }
  // A device measures its kernels at the same time.
  void set_measuring(bool measuring);
  bool measuring() const { return measuring_; }

  // Never fails: past the reservation it counts and returns nullptr, and overflowed() tells (a plan was wrong).
  void* allocate(size_t size_bytes);
  Tensor tensor(Shape shape, DType dtype);

  size_t mark() const { return used_; }
  void reset(size_t mark = 0) { used_ = mark; }
  size_t peak() const { return peak_; }
  void reset_peak() { peak_ = used_; }
  size_t capacity() const { return capacity_; }
  bool overflowed() const { return overflowed_; }
  void clear_overflow() { overflowed_ = false; }

 private:
  Status reserve_on_device(size_t size_bytes);
  TensorMemory memory_;
  uint8_t* base_ = nullptr;
  size_t mapped_ = 0, capacity_ = 0, used_ = 0, peak_ = 0;  // capacity_: of what is mapped, the part that may be held
  bool planning_ = false, measuring_ = false, overflowed_ = false;
};

// Zero pages on demand; nullptr when the system refuses. From 1 MiB on: aligned to huge pages of 2 MiB, which are
// advised. A rest below half of one is small pages.
void* allocate_pages(size_t size_bytes);
void free_pages(void* data, size_t size_bytes);
// The whole pages of a part of such an allocation: they hold nothing until they are touched again.
void give_back_pages(void* data, size_t size_bytes);

// An allocation of pages for `purpose` that lives as long as this object.
class Pages {
 public:
  Pages() = default;
  ~Pages() { memory_.release(data_, size_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  // Once. Fails with out_of_memory; `advice` says what to lower.
  Status reserve(const TensorMemory& memory, size_t size_bytes, const char* purpose, const char* advice);
  uint8_t* data() const { return data_; }
  size_t size_bytes() const { return size_; }

 private:
  TensorMemory memory_;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace gavel
