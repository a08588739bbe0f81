// Pages of keys and values for all layers: block b of layer l lies at l * layer_bytes + b * block_bytes. Memory is
// reserved for the worst case that was admitted and touched only where used. Job thread only.
#pragma once
#include <vector>

#include "core/arena.h"
#include "core/status.h"
#include "model/architecture.h"

namespace gavel {

class KvPool {
 public:
  // Of one page, in one layer.
  static int64_t page_bytes(const Architecture& architecture, DType dtype) {
    return int64_t{architecture.kv_heads} * 2 * kKeyBlock * architecture.head_dim *
           static_cast<int64_t>(dtype_size(dtype));
  }

  Status reserve(const TensorMemory& memory, const Architecture& architecture, DType dtype, int32_t blocks) {
    memory_ = memory;
    page_bytes_ = page_bytes(architecture, dtype);
    layers_ = architecture.num_layers;
    layer_bytes_ = page_bytes_ * blocks;
    blocks_ = blocks;
    return pages_.reserve(memory, static_cast<size_t>(layer_bytes_) * static_cast<size_t>(layers_), "keys and values",
                          "Use fewer rows at once (`maxRows`) or shorter completions.");
  }

  // Whoever takes has seen that one is available().
  int32_t take() {
    if (free_.empty()) return fresh_++;
    const int32_t block = free_.back();
    free_.pop_back();
    return block;
  }
  void give(std::vector<int32_t>* blocks) {
    free_.insert(free_.end(), blocks->rbegin(), blocks->rend());
    blocks->clear();
  }
  // Pages of all layers, [layers, pages, page], out of the pool to the host and back.
  void copy_out(const std::vector<int32_t>& blocks, uint8_t* to) const {
    std::vector<TensorMemory::Transfer> transfers;
    for_pages(blocks, [&](size_t at, uint8_t* page) {
      transfers.push_back({to + at, page, static_cast<size_t>(page_bytes_)});
    });
    memory_.download(transfers);
  }
  void copy_in(const std::vector<int32_t>& blocks, const uint8_t* from) {
    for_pages(blocks,
              [&](size_t at, uint8_t* page) { memory_.upload(page, from + at, static_cast<size_t>(page_bytes_)); });
  }
  int32_t available() const { return blocks_ - fresh_ + static_cast<int32_t>(free_.size()); }
  uint8_t* data() const { return pages_.data(); }
  int64_t layer_bytes() const { return layer_bytes_; }
  size_t size_bytes() const { return pages_.size_bytes(); }

  int64_t page_bytes() const { return page_bytes_; }
  int32_t layers() const { return layers_; }

 private:
  template <class Body>
  void for_pages(const std::vector<int32_t>& blocks, const Body& body) const {
    size_t at = 0;
    for (int32_t layer = 0; layer < layers_; ++layer) {
      for (const int32_t block : blocks) {
        body(at, pages_.data() + layer * layer_bytes_ + block * page_bytes_);
        at += static_cast<size_t>(page_bytes_);
      }
    }
  }

  TensorMemory memory_;
  Pages pages_;
  int64_t layer_bytes_ = 0, page_bytes_ = 0;
  int32_t layers_ = 0, blocks_ = 0, fresh_ = 0;  // fresh_: blocks from here on were never taken
  std::vector<int32_t> free_;
};

}  // namespace gavel
