// What an op's host function is given: a stream, a workspace that it takes pieces of, and a status for what it refuses.
// The same function is run once to measure, when nothing is launched and pieces have no memory: so the plan of a call
// is the call itself.
#pragma once
#include "core/plugin.h"
#include "cuda/device.cuh"

namespace gavel::cuda {

bool report(cudaError_t error, PluginStatus* status);

// Streaming multiprocessors of a device; asked once.
int multiprocessors(int32_t device);

class Launch {
 public:
  Launch(const PluginLaunch& launch, PluginStatus* status, bool measuring = false)
      : launch_(launch), status_(*status), measuring_(measuring) {}

  const PluginLaunch& place() const { return launch_; }
  PluginStatus& status() { return status_; }
  bool measuring() const { return measuring_; }
  uint64_t used() const { return used_; }
  bool ok() const { return status_.ok(); }
  int processors() const { return multiprocessors(launch_.device); }
  // Sums may be cut in parts.
  bool fastest() const { return launch_.exactness == Exactness::fastest; }

  // True when `supported`; else the call ends with `message`.
  bool expect(bool supported, const char* message) {
    if (!supported && ok()) status_.set(Code::unsupported, message);
    return supported && ok();
  }

  // `count` elements of workspace, aligned to 256 bytes; contents are undefined.
  template <class T>
  T* workspace(int64_t count) {
    uint8_t* const base = measuring() ? nullptr : static_cast<uint8_t*>(launch_.workspace);
    T* const result = reinterpret_cast<T*>(base + used_);
    used_ += static_cast<uint64_t>(round_up(count * static_cast<int64_t>(sizeof(T)), 256));
    if (!measuring() && used_ > launch_.workspace_bytes && ok())
      status_.set(Code::internal, "Expected a workspace of the size that was planned but it is smaller.");
    return result;
  }

  template <class... Parameters, class... Arguments>
  void run(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes, Arguments... arguments) {
    if (measuring() || !ok() || grid.x == 0 || grid.y == 0 || grid.z == 0) return;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = shared_bytes;
    config.stream = static_cast<cudaStream_t>(launch_.stream);
    constexpr size_t kWithoutAsking = 48 * 1024;
    if (shared_bytes > kWithoutAsking &&
        !report(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(shared_bytes)),
                &status_))
      return;
    report(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), &status_);
  }

  void zero(void* memory, size_t size_bytes) {
    if (measuring() || !ok() || size_bytes == 0) return;
    report(cudaMemsetAsync(memory, 0, size_bytes, static_cast<cudaStream_t>(launch_.stream)), &status_);
  }

 private:
  const PluginLaunch& launch_;
  PluginStatus& status_;
  const bool measuring_;
  uint64_t used_ = 0;
};

inline dim3 blocks(int64_t x, int64_t y = 1, int64_t z = 1) {
  return dim3(static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z));
}

}  // namespace gavel::cuda
