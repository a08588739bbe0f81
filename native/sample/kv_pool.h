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
  KvPool() = default;
  ~KvPool() { free_pages(data_, size_); }
  KvPool(const KvPool&) = delete;
  KvPool& operator=(const KvPool&) = delete;

  Status reserve(const Architecture& architecture, DType dtype, int32_t blocks) {
    const int64_t block = int64_t{architecture.kv_heads} * 2 * kKeyBlock * architecture.head_dim *
                          static_cast<int64_t>(dtype_size(dtype));
    layer_bytes_ = block * blocks;
    size_ = static_cast<size_t>(layer_bytes_) * static_cast<size_t>(architecture.num_layers);
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
  int32_t available() const { return static_cast<int32_t>(free_.size()); }
  uint8_t* data() const { return data_; }
  int64_t layer_bytes() const { return layer_bytes_; }
  size_t size_bytes() const { return size_; }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  int64_t layer_bytes_ = 0;
  std::vector<int32_t> free_;
};

}  // namespace gavel
