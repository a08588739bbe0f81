// The small lists that host code makes for a recorded pass: each is stored once, however many kernels name it, and all
// travel in one copy from pinned memory. Two passes take turns there, so that the host fills one while the device reads
// the other. Places are powers of two: a list that grows a little moves none of those behind it.
#pragma once
#include <vector>

#include "core/plugin.h"

namespace gavel {

class DeviceLists {
 public:
  DeviceLists(const PluginBackend& backend, const PluginLaunch& launch, PluginStatus& status)
      : backend_(backend), launch_(launch), status_(status) {}

  // A new pass; waits until the lists of the last but one were read. Measuring only counts.
  void begin(bool measuring);
  // Where `size_bytes` at `host`, taken as they are now, will lie on the device.
  uint8_t* place(const void* host, uint64_t size_bytes);
  bool must_grow() const { return wish_ > size_; }
  // To what was measured. Nothing may be running.
  void grow(bool planning);
  void upload();
  // Of the device, or wished for in a plan.
  uint64_t size_bytes() const { return size_; }
  void release();

 private:
  struct Entry {
    const void* host;
    uint64_t size, offset;
  };
  struct Turn {
    uint8_t* pinned = nullptr;
    void* read = nullptr;  // passes when the device has copied it
    bool used = false;
  };
  const PluginBackend& backend_;
  const PluginLaunch& launch_;
  PluginStatus& status_;
  std::vector<Entry> entries_;
  Turn turns_[2];
  int turn_ = 0;
  bool measuring_ = false;
  uint8_t* data_ = nullptr;
  uint64_t used_ = 0, size_ = 0, wish_ = 0;
};

}  // namespace gavel
