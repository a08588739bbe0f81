#include "core/device.h"

#include <algorithm>
#include <iterator>
#include <string>

namespace gavel {
namespace {

Status status_of(const PluginStatus& failure) {
  if (failure.ok()) return Status::success();
  const Code code = static_cast<Code>(failure.code);
  if (code == Code::out_of_memory) {
    const std::string requested = std::to_string(failure.requested_bytes), free = std::to_string(failure.free_bytes);
    return Status::error(code, "Expected " + requested + " bytes of the device but " + free +
                                   " are free. Use smaller micro-batches (`maxTokensPerMicroBatch`), fewer rows at "
                                   "once (`maxRows`) or a smaller model.")
        .with("requestedBytes", requested)
        .with("availableBytes", free);
  }
  if (code != Code::device_unavailable) return Status::error(code, failure.message);
  return Status::error(code, "Expected the device to do its work but it failed: " + std::string(failure.message) +
                                 ". Make a new engine; `gavel doctor` says what the device is.");
}

}  // namespace

Device::Device(const PluginBackend& backend, int32_t index, bool planning)
    : backend_(backend), planning_(planning), lists_(backend, launch_, status_), graphs_(backend, launch_, status_) {
  launch_.device = index;
}

Device::~Device() { release_buffers(); }

void Device::release_buffers() {
  PluginStatus ignored;
  if (!planning_) synchronize(ignored);
  graphs_.drop();
  lists_.release();
  for (Buffer* buffer : {&workspace_, &staging_}) {
    if (buffer->data != nullptr) backend_.release(launch_.device, buffer->data, &ignored);
    *buffer = {};
  }
}

void Device::set_exactness(Exactness exactness) {
  std::lock_guard lock(calls_);
  if (launch_.exactness == exactness) return;
  // Kept graphs are of the other mode.
  if (!planning_) synchronize(status_);
  graphs_.drop();
  launch_.exactness = exactness;
}

Status Device::finish() {
  std::lock_guard lock(calls_);
  if (!planning_) synchronize(status_);
  Status result = status_of(status_);
  status_ = {};
  return result;
}

void Device::synchronize(PluginStatus& status) {
  ++waits_;
  backend_.synchronize(&launch_, &status);
}

void Device::grow(Buffer& buffer) {
  if (buffer.wish <= buffer.size || !ok()) return;
  if (planning_) {
    buffer.size = buffer.wish;
    return;
  }
  synchronize(status_);
  graphs_.drop();
  if (buffer.data != nullptr) backend_.release(launch_.device, buffer.data, &status_);
  const uint64_t wish = buffer.wish;
  buffer = {};
  if (!ok()) return;
  buffer.data = backend_.allocate(launch_.device, wish, &status_);
  if (ok()) buffer.size = buffer.wish = wish;
}

void Device::want(Buffer& buffer, uint64_t size_bytes) {
  buffer.wish = std::max(buffer.wish, size_bytes);
  if (!measuring_) grow(buffer);
}

void Device::grow_lists() {
  if (!lists_.must_grow() || !ok()) return;
  if (!planning_) {
    synchronize(status_);
    graphs_.drop();
  }
  lists_.grow(planning_);
}

void Device::set_measuring(bool measuring) {
  std::lock_guard lock(calls_);
  measuring_ = measuring;
  if (recording_) lists_.begin(measuring);
}

Status Device::reserve() {
  std::lock_guard lock(calls_);
  grow(workspace_);
  grow(staging_);
  grow_lists();
  Status result = status_of(status_);
  status_ = {};
  return result;
}

const PluginLaunch& Device::launch(uint64_t workspace_bytes) {
  std::lock_guard lock(calls_);
  want(workspace_, workspace_bytes);
  launch_.workspace = workspace_.data;
  launch_.workspace_bytes = workspace_.size;
  return launch_;
}

uint8_t* Device::staging(uint64_t size_bytes) {
  std::lock_guard lock(calls_);
  want(staging_, size_bytes);
  return static_cast<uint8_t*>(staging_.data);
}

void Device::record() {
  std::lock_guard lock(calls_);
  recording_ = true;
  lists_.begin(true);
  graphs_.begin();
}

void Device::abandon() {
  std::lock_guard lock(calls_);
  recording_ = false;
}

void Device::submit() {
  std::lock_guard lock(calls_);
  recording_ = false;
  if (planning_) return grow_lists();
  lists_.upload();
  launch_.workspace = workspace_.data;
  launch_.workspace_bytes = workspace_.size;
  graphs_.submit();
}

PassCounts Device::counts() {
  std::lock_guard lock(calls_);
  PassCounts result = graphs_.counts();
  result.waits = waits_;
  return result;
}

void* Device::list(const void* host, uint64_t size_bytes) {
  std::lock_guard lock(calls_);
  return lists_.place(host, size_bytes);
}

void Device::record_kernel(void (*function)(const PluginLaunch*, const void*, PluginStatus*), const void* parameters,
                           uint64_t size_bytes, void (*attach)(void*)) {
  std::lock_guard lock(calls_);
  graphs_.kernel(function, parameters, size_bytes, attach);
}

void* Device::allocate(uint64_t size_bytes) {
  std::lock_guard lock(calls_);
  if (!ok()) return nullptr;
  void* const memory = backend_.allocate(launch_.device, size_bytes, &status_);
  if (memory != nullptr) held_.emplace(static_cast<const uint8_t*>(memory), size_bytes);
  return memory;
}

// Whatever failed before: memory goes back, after what still uses it.
void Device::release(void* memory) {
  std::lock_guard lock(calls_);
  PluginStatus own;
  synchronize(own);
  graphs_.drop();
  held_.erase(static_cast<const uint8_t*>(memory));
  backend_.release(launch_.device, memory, &own);
  if (ok()) status_ = own;
}

bool Device::holds(const void* address) {
  std::lock_guard lock(calls_);
  const auto* const at = static_cast<const uint8_t*>(address);
  const auto next = held_.upper_bound(at);
  return next != held_.begin() && at < std::prev(next)->first + std::prev(next)->second;
}

void* Device::allocate_host(uint64_t size_bytes) {
  std::lock_guard lock(calls_);
  return ok() ? backend_.allocate_host(launch_.device, size_bytes, &status_) : nullptr;
}

void Device::release_host(void* memory) {
  std::lock_guard lock(calls_);
  PluginStatus ignored;
  synchronize(ignored);
  backend_.release_host(launch_.device, memory, &ignored);
}

void Device::copy_out(void* to, const void* from, uint64_t size_bytes) {
  std::lock_guard lock(calls_);
  if (ok() && size_bytes > 0) backend_.copy_to_host(&launch_, to, from, size_bytes, &status_);
}

void Device::mark(Mark& mark) {
  std::lock_guard lock(calls_);
  if (ok() && mark == nullptr) mark = backend_.make_event(launch_.device, &status_);
  if (ok()) backend_.mark(&launch_, mark, &status_);
}

// Not under the lock: others may enqueue meanwhile.
void Device::wait(Mark mark) {
  PluginStatus own;
  if (mark != nullptr) backend_.wait(&launch_, mark, &own);
  std::lock_guard lock(calls_);
  if (ok()) status_ = own;
}

void Device::release_mark(Mark mark) {
  std::lock_guard lock(calls_);
  PluginStatus ignored;
  if (mark != nullptr) backend_.release_event(launch_.device, mark, &ignored);
}

uint64_t Device::free_bytes() {
  std::lock_guard lock(calls_);
  uint64_t free = 0, total = 0;
  if (ok()) backend_.memory_info(launch_.device, &free, &total, &status_);
  return free;
}

void Device::copy(void* to, const void* from, uint64_t size_bytes) {
  std::lock_guard lock(calls_);
  if (!ok() || size_bytes == 0) return;
  if (recording_) return graphs_.copy(to, from, size_bytes);
  backend_.copy(&launch_, to, from, size_bytes, &status_);
}

void Device::clear(void* to, uint64_t size_bytes) {
  std::lock_guard lock(calls_);
  if (!ok() || size_bytes == 0) return;
  if (recording_) return graphs_.clear(to, size_bytes);
  backend_.clear(&launch_, to, size_bytes, &status_);
}

void Device::upload(void* to, const void* from, uint64_t size_bytes) {
  std::lock_guard lock(calls_);
  if (ok() && size_bytes > 0) backend_.copy_to_device(&launch_, to, from, size_bytes, &status_);
}

void Device::download(std::span<const Transfer> transfers) {
  std::lock_guard lock(calls_);
  if (!ok()) return;
  for (const Transfer& one : transfers) {
    if (one.size_bytes > 0) backend_.copy_to_host(&launch_, one.to, one.from, one.size_bytes, &status_);
  }
  synchronize(status_);
}

}  // namespace gavel
