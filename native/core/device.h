// A device of a plugin as an engine uses it: one stream, the memory that calls share, and the first failure. Kernels
// are enqueued, so a failure is known when the host next waits; until then later calls do nothing. Kernels are of the
// job thread; memory may be moved from any.
#pragma once
#include <map>
#include <mutex>
#include <span>

#include "core/device_lists.h"
#include "core/pass_graphs.h"
#include "core/plugin.h"
#include "core/status.h"

namespace gavel {

class Device {
 public:
  // planning: nothing is taken or computed, only counted.
  Device(const PluginBackend& backend, int32_t index, bool planning = false);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const PluginBackend& backend() const { return backend_; }
  int32_t index() const { return launch_.device; }
  // Of every kernel from here on; bitwise at first.
  Exactness exactness() const { return launch_.exactness; }
  void set_exactness(Exactness exactness);
  uint64_t workspace_of(const PluginKernel& kernel, const void* parameters, bool backward) {
    return kernel.workspace(&launch_, parameters, backward, &status_);
  }
  bool ok() const { return status_.ok(); }
  PluginStatus& failure() { return status_; }
  // Waits for everything enqueued, then says what went wrong since the last call and forgets it.
  Status finish();

  // While measuring, kernels are asked what they will take instead of being run.
  void set_measuring(bool measuring);
  bool measuring() const { return measuring_ || planning_; }
  // Takes what was measured, so that nothing runs out in the middle of a pass.
  Status reserve();
  // For a kernel that wants `workspace_bytes`: memory grows to the largest wish and is shared by all calls.
  const PluginLaunch& launch(uint64_t workspace_bytes);
  // Device memory for `size_bytes` of operands that the host made; its contents last for one call.
  uint8_t* staging(uint64_t size_bytes);
  // Held by both and by lists, or wished for in a plan.
  uint64_t buffer_bytes() const { return workspace_.size + staging_.size + lists_.size_bytes(); }
  void release_buffers();

  // A recorded pass: measured first, and reserve() called, its kernels, copies and clears are listed, then enqueued
  // together by submit(), as one graph when the same calls came before. Lists that the host made travel once for all of
  // them (DeviceLists), and nothing is downloaded. By the job thread, while nobody else moves memory.
  void record();
  bool recording() const { return recording_; }
  void submit();
  void abandon();
  // Where a list of the host will lie in a recorded pass; while measuring it is counted.
  void* list(const void* host, uint64_t size_bytes);
  void record_kernel(void (*function)(const PluginLaunch*, const void*, PluginStatus*), const void* parameters,
                     uint64_t size_bytes, void (*attach)(void*));
  PassCounts counts();

  // Memory as it comes. Null when it is refused: the failure says why.
  void* allocate(uint64_t size_bytes);
  void release(void* memory);
  uint64_t free_bytes();
  // Whether it lies in memory that was allocated here.
  bool holds(const void* address);

  // Memory of the host that copy_out() writes when the device gets there.
  void* allocate_host(uint64_t size_bytes);
  void release_host(void* memory);
  void copy_out(void* to, const void* from, uint64_t size_bytes);
  // A place in what is enqueued, made with the first mark(); wait() returns when everything before it is done.
  using Mark = void*;
  void mark(Mark& mark);
  void wait(Mark mark);
  void release_mark(Mark mark);

  struct Transfer {
    void* to;
    const void* from;
    uint64_t size_bytes;
  };
  void copy(void* to, const void* from, uint64_t size_bytes);
  void clear(void* to, uint64_t size_bytes);
  void upload(void* to, const void* from, uint64_t size_bytes);
  // Waits until all are there.
  void download(std::span<const Transfer> transfers);
  // Held while a piece of a tensor is read, changed and written back by the host.
  std::recursive_mutex& pieces() { return pieces_; }

 private:
  struct Buffer {
    void* data = nullptr;
    uint64_t size = 0, wish = 0;
  };
  void want(Buffer& buffer, uint64_t size_bytes);
  void grow(Buffer& buffer);
  void grow_lists();
  void synchronize(PluginStatus& status);

  const PluginBackend& backend_;
  const bool planning_;
  bool measuring_ = false;
  PluginLaunch launch_;
  PluginStatus status_;
  Buffer workspace_, staging_;
  DeviceLists lists_;
  PassGraphs graphs_;
  bool recording_ = false;
  int64_t waits_ = 0;
  std::map<const uint8_t*, uint64_t> held_;  // size by address
  std::mutex calls_;
  std::recursive_mutex pieces_;
};

}  // namespace gavel
