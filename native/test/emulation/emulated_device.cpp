// The plugin's runtime with the processor behind it: one device that is always there.
#include <memory>

#include "cuda/launch.cuh"
#include "cuda/runtime.h"

namespace gavel::cuda {

bool report(cudaError_t error, PluginStatus* status) {
  if (error == cudaSuccess) return true;
  if (status->ok()) status->set(Code::device_unavailable, "the launch was refused");
  return false;
}
int multiprocessors(int32_t) { return emulation::processors(); }
int32_t device_count(PluginStatus*) { return 1; }
void device_info(int32_t, PluginDevice* info, PluginStatus*) {
  std::snprintf(info->name, sizeof(info->name), "%s", "emulation on the processor");
  info->memory_bytes = emulation::total_bytes();
}
void versions(PluginVersions* versions) {
  std::snprintf(versions->cublaslt, sizeof(versions->cublaslt), "none: emulated devices have none");
}
void* allocate(int32_t, uint64_t size_bytes, PluginStatus* status) {
  void* const memory = emulation::allocate(size_bytes);
  if (memory != nullptr) return memory;
  status->set(Code::out_of_memory, "the emulated device has no such memory");
  status->requested_bytes = size_bytes;
  status->free_bytes = emulation::free_bytes();
  return nullptr;
}
void release(int32_t, void* memory, PluginStatus*) { emulation::release(memory); }
void memory_info(int32_t, uint64_t* free_bytes, uint64_t* total_bytes, PluginStatus*) {
  *free_bytes = emulation::free_bytes();
  *total_bytes = emulation::total_bytes();
}
// The host may change what it gave as soon as the call returns; pinned memory is read when the copy runs.
void copy_to_device(const PluginLaunch* launch, void* to, const void* from, uint64_t size_bytes, PluginStatus*) {
  emulation::check_address(to);
  emulation::check_captured(from, launch->stream);
  if (emulation::is_pinned(from)) return emulation::enqueue([=] { std::memcpy(to, from, size_bytes); }, launch->stream);
  const std::shared_ptr<uint8_t[]> bytes(new uint8_t[size_bytes]);
  std::memcpy(bytes.get(), from, size_bytes);
  emulation::enqueue([=] { std::memcpy(to, bytes.get(), size_bytes); }, launch->stream);
}
void copy_to_host(const PluginLaunch* launch, void* to, const void* from, uint64_t size_bytes, PluginStatus*) {
  emulation::check_address(from);
  emulation::check_captured(to, launch->stream);
  emulation::enqueue([=] { std::memcpy(to, from, size_bytes); }, launch->stream);
}
void copy(const PluginLaunch* launch, void* to, const void* from, uint64_t size_bytes, PluginStatus*) {
  emulation::check_address(to);
  emulation::check_address(from);
  emulation::enqueue([=] { std::memcpy(to, from, size_bytes); }, launch->stream);
}
void clear(const PluginLaunch* launch, void* to, uint64_t size_bytes, PluginStatus*) {
  emulation::check_address(to);
  emulation::enqueue([=] { std::memset(to, 0, size_bytes); }, launch->stream);
}
void synchronize(const PluginLaunch*, PluginStatus*) { emulation::synchronize(); }

void* allocate_host(int32_t, uint64_t size_bytes, PluginStatus*) { return emulation::allocate_host(size_bytes); }
void release_host(int32_t, void* memory, PluginStatus*) { emulation::release_host(memory); }
void* make_event(int32_t, PluginStatus*) { return new uint64_t{0}; }
void release_event(int32_t, void* event, PluginStatus*) { delete static_cast<uint64_t*>(event); }
void mark(const PluginLaunch*, void* event, PluginStatus*) { *static_cast<uint64_t*>(event) = emulation::mark(); }
void wait(const PluginLaunch*, void* event, PluginStatus*) { emulation::wait_for(*static_cast<uint64_t*>(event)); }

void begin_capture(PluginLaunch* launch, PluginStatus* status) {
  launch->stream = emulation::begin_capture();
  if (launch->stream == nullptr) status->set(Code::device_unavailable, "captures are refused");
}
void* end_capture(PluginLaunch* launch, PluginStatus* status) {
  void* const graph = emulation::end_capture(launch->stream);
  launch->stream = nullptr;
  if (status->ok()) return graph;
  emulation::release_graph(graph);
  return nullptr;
}
void launch_graph(const PluginLaunch*, void* graph, PluginStatus*) { emulation::launch_graph(graph); }
void release_graph(int32_t, void* graph, PluginStatus*) { emulation::release_graph(graph); }

}  // namespace gavel::cuda
