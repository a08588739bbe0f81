// What a decode step draws. It stays where it was drawn, so that the next step reads its tokens there; the host gets a
// copy in one of two turns, on a device without waiting for anything but that step.
#pragma once
#include "core/arena.h"

namespace gavel::sampling {

class Draws {
 public:
  Draws() = default;
  ~Draws();
  Draws(const Draws&) = delete;
  Draws& operator=(const Draws&) = delete;

  Status reserve(const TensorMemory& memory, int64_t rows);
  // Where a step's kernels read and write.
  int32_t* tokens() const { return at<int32_t>(drawn_.data(), 0); }
  float* logprobs() const { return at<float>(drawn_.data(), 1); }
  float* log_kept_mass() const { return at<float>(drawn_.data(), 2); }
  float* normalizers() const { return at<float>(drawn_.data(), 3); }

  // Enqueues the copy for the host.
  void send(int turn);
  struct Results {
    const int32_t* tokens;
    const float *logprobs, *log_kept_mass;
  };
  // Of the step that was sent in this turn; waits for it, and no later one. Valid until the turn is sent again.
  Results receive(int turn);

 private:
  static constexpr size_t kSent = 3, kLists = 4;
  static constexpr int kTurns = 2;
  template <class T>
  T* at(uint8_t* lists, size_t list) const {
    return reinterpret_cast<T*>(lists + list * list_bytes_);
  }
  TensorMemory memory_;
  Pages drawn_;  // [4, rows]
  size_t list_bytes_ = 0;
  uint8_t* host_ = nullptr;  // [turns, 3, rows]
  Device::Mark sent_[kTurns] = {};
};

}  // namespace gavel::sampling
