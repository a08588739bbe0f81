// Pages of keys and values for all layers: block b of layer l lies at l * layer_bytes + b * block_bytes. Memory is
// reserved for the worst case that was admitted and touched only where used. Job thread only.
#pragma once
#include <cstring>
#include <vector>

#include "core/arena.h"
#include "core/status.h"
#include "model/architecture.h"

namespace gavel {

class KvPool {
 public:
  KvPool() = default;
  ~KvPool() { free_pages(data_, size_); }
  KvPool(const KvPool&) = delete;
  KvPool& operator=(const KvPool&) = delete;

  // Of one page, in one layer.
  static int64_t page_bytes(const Architecture& architecture, DType dtype) {
    return int64_t{architecture.kv_heads} * 2 * kKeyBlock * architecture.head_dim *
           static_cast<int64_t>(dtype_size(dtype));
  }

  Status reserve(const Architecture& architecture, DType dtype, int32_t blocks) {
    page_bytes_ = page_bytes(architecture, dtype);
    layers_ = architecture.num_layers;
    layer_bytes_ = page_bytes_ * blocks;
    size_ = static_cast<size_t>(layer_bytes_) * static_cast<size_t>(layers_);
    data_ = static_cast<uint8_t*>(allocate_pages(size_));
    if (data_ == nullptr) {
      return Status::error(Code::out_of_memory, "Expected " + std::to_string(size_) +
                                                    " bytes for keys and values but the system refused them. Use fewer "
                                                    "rows at once (`maxRows`) or shorter completions.")
          .with("requestedBytes", std::to_string(size_));
    }
    for (int32_t id = blocks; id-- > 0;) free_.push_back(id);
    return Status::success();
  }

  int32_t take() {
    const int32_t block = free_.back();
    free_.pop_back();
    return block;
  }
  void give(std::vector<int32_t>* blocks) {
    free_.insert(free_.end(), blocks->rbegin(), blocks->rend());
    blocks->clear();
  }
  // Pages of all layers, [layers, pages, page], out of the pool and into it.
  void copy_out(const std::vector<int32_t>& blocks, uint8_t* to) const {
    for_pages(blocks, [&](size_t at, uint8_t* page) { std::memcpy(to + at, page, static_cast<size_t>(page_bytes_)); });
  }
  void copy_in(const std::vector<int32_t>& blocks, const uint8_t* from) {
    for_pages(blocks,
              [&](size_t at, uint8_t* page) { std::memcpy(page, from + at, static_cast<size_t>(page_bytes_)); });
  }
  int32_t available() const { return static_cast<int32_t>(free_.size()); }
  uint8_t* data() const { return data_; }
  int64_t layer_bytes() const { return layer_bytes_; }
  size_t size_bytes() const { return size_; }

  int64_t page_bytes() const { return page_bytes_; }
  int32_t layers() const { return layers_; }

 private:
  template <class Body>
  void for_pages(const std::vector<int32_t>& blocks, const Body& body) const {
    size_t at = 0;
    for (int32_t layer = 0; layer < layers_; ++layer) {
      for (const int32_t block : blocks) {
        body(at, data_ + layer * layer_bytes_ + block * page_bytes_);
        at += static_cast<size_t>(page_bytes_);
      }
    }
  }

  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  int64_t layer_bytes_ = 0, page_bytes_ = 0;
  int32_t layers_ = 0;
  std::vector<int32_t> free_;
};

}  // namespace gavel
