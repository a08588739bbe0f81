// Devices, memory, copies and errors by CUDA's runtime, which is linked statically: the driver is found at run time, so
// the plugin loads on any machine and says in a status why it cannot run there.
#include "cuda/runtime.h"

#include <cuda_runtime.h>

#include <array>
#include <atomic>

#include "cuda/cublaslt.h"
#include "cuda/launch.cuh"

namespace gavel::cuda {

bool report(cudaError_t error, PluginStatus* status) {
  if (error == cudaSuccess) return true;
  if (!status->ok()) return false;  // the first failure is the cause
  const Code code = error == cudaErrorMemoryAllocation ? Code::out_of_memory : Code::device_unavailable;
  char text[sizeof(status->message)];
  std::snprintf(text, sizeof(text), "%s (%s)", cudaGetErrorString(error), cudaGetErrorName(error));
  status->set(code, text);
  return false;
}

int multiprocessors(int32_t device) {
  static std::array<std::atomic<int>, 64> known{};
  std::atomic<int>& count = known[static_cast<size_t>(device) % known.size()];
  if (count.load() == 0) {
    int value = 0;
    if (cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device) != cudaSuccess || value == 0) value = 1;
    count.store(value);
  }
  return count.load();
}

int32_t device_count(PluginStatus* status) {
  int count = 0;
  if (!report(cudaGetDeviceCount(&count), status)) return 0;
  return count;
}

void device_info(int32_t device, PluginDevice* info, PluginStatus* status) {
  cudaDeviceProp properties;
  if (!report(cudaGetDeviceProperties(&properties, device), status)) return;
  std::snprintf(info->name, sizeof(info->name), "%s", properties.name);
  info->memory_bytes = properties.totalGlobalMem;
  info->major = properties.major;
  info->minor = properties.minor;
}

void versions(PluginVersions* versions) {
  const auto write = [](int version, char(&text)[16]) {
    if (version > 0) std::snprintf(text, sizeof(text), "%d.%d", version / 1000, version % 1000 / 10);
  };
  int driver = 0, runtime = 0;
  if (cudaDriverGetVersion(&driver) == cudaSuccess) write(driver, versions->driver);
  if (cudaRuntimeGetVersion(&runtime) == cudaSuccess) write(runtime, versions->runtime);
  cublaslt_version(versions->cublaslt, sizeof(versions->cublaslt));
}

// Says how much was asked for and how much there is: whoever called knows what to make smaller.
void* allocate(int32_t device, uint64_t size_bytes, PluginStatus* status) {
  void* memory = nullptr;
  if (!report(cudaSetDevice(device), status)) return nullptr;
  const cudaError_t error = cudaMalloc(&memory, size_bytes);
  if (error != cudaErrorMemoryAllocation) return report(error, status) ? memory : nullptr;
  cudaGetLastError();  // clears it: the process goes on
  uint64_t free_bytes = 0, total_bytes = 0;
  memory_info(device, &free_bytes, &total_bytes, status);
  report(error, status);
  status->requested_bytes = size_bytes;
  status->free_bytes = free_bytes;
  return nullptr;
}

void release(int32_t device, void* memory, PluginStatus* status) {
  if (report(cudaSetDevice(device), status)) report(cudaFree(memory), status);
}

void memory_info(int32_t device, uint64_t* free_bytes, uint64_t* total_bytes, PluginStatus* status) {
  size_t free_now = 0, total = 0;
  if (!report(cudaSetDevice(device), status) || !report(cudaMemGetInfo(&free_now, &total), status)) return;
  *free_bytes = free_now;
  *total_bytes = total;
}

void copy_to_device(const PluginLaunch* launch, void* to, const void* from, uint64_t size_bytes, PluginStatus* status) {
  if (!report(cudaSetDevice(launch->device), status)) return;
  const auto stream = static_cast<cudaStream_t>(launch->stream);
  report(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyHostToDevice, stream), status);
}

void copy_to_host(const PluginLaunch* launch, void* to, const void* from, uint64_t size_bytes, PluginStatus* status) {
  if (!report(cudaSetDevice(launch->device), status)) return;
  const auto stream = static_cast<cudaStream_t>(launch->stream);
  report(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyDeviceToHost, stream), status);
}

void copy(const PluginLaunch* launch, void* to, const void* from, uint64_t size_bytes, PluginStatus* status) {
  if (!report(cudaSetDevice(launch->device), status)) return;
  const auto stream = static_cast<cudaStream_t>(launch->stream);
  report(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyDeviceToDevice, stream), status);
}

void clear(const PluginLaunch* launch, void* to, uint64_t size_bytes, PluginStatus* status) {
  if (!report(cudaSetDevice(launch->device), status)) return;
  report(cudaMemsetAsync(to, 0, size_bytes, static_cast<cudaStream_t>(launch->stream)), status);
}

void synchronize(const PluginLaunch* launch, PluginStatus* status) {
  if (!report(cudaSetDevice(launch->device), status)) return;
  report(cudaStreamSynchronize(static_cast<cudaStream_t>(launch->stream)), status);
}

void* allocate_host(int32_t device, uint64_t size_bytes, PluginStatus* status) {
  void* memory = nullptr;
  if (!report(cudaSetDevice(device), status)) return nullptr;
  return report(cudaHostAlloc(&memory, size_bytes, cudaHostAllocDefault), status) ? memory : nullptr;
}

void release_host(int32_t device, void* memory, PluginStatus* status) {
  if (report(cudaSetDevice(device), status)) report(cudaFreeHost(memory), status);
}

void* make_event(int32_t device, PluginStatus* status) {
  cudaEvent_t event = nullptr;
  if (!report(cudaSetDevice(device), status)) return nullptr;
  return report(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), status) ? event : nullptr;
}

void release_event(int32_t device, void* event, PluginStatus* status) {
  if (report(cudaSetDevice(device), status)) report(cudaEventDestroy(static_cast<cudaEvent_t>(event)), status);
}

void mark(const PluginLaunch* launch, void* event, PluginStatus* status) {
  if (!report(cudaSetDevice(launch->device), status)) return;
  report(cudaEventRecord(static_cast<cudaEvent_t>(event), static_cast<cudaStream_t>(launch->stream)), status);
}

void wait(const PluginLaunch* launch, void* event, PluginStatus* status) {
  if (!report(cudaSetDevice(launch->device), status)) return;
  report(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), status);
}

// The default stream cannot be captured: a stream of its own is, which the default one does not wait for.
void begin_capture(PluginLaunch* launch, PluginStatus* status) {
  if (!report(cudaSetDevice(launch->device), status)) return;
  cudaStream_t stream = nullptr;
  if (!report(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), status)) return;
  if (report(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), status)) {
    launch->stream = stream;
  } else {
    report(cudaStreamDestroy(stream), status);
  }
}

// Also after a failure in between: the capture ends, without a graph.
void* end_capture(PluginLaunch* launch, PluginStatus* status) {
  const auto stream = static_cast<cudaStream_t>(launch->stream);
  launch->stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t made = nullptr;
  report(cudaStreamEndCapture(stream, &graph), status);
  report(cudaStreamDestroy(stream), status);
  if (graph != nullptr) {
    if (status->ok()) report(cudaGraphInstantiateWithFlags(&made, graph, 0), status);
    report(cudaGraphDestroy(graph), status);
  }
  if (!status->ok()) cudaGetLastError();  // clears it: the calls can be enqueued one by one
  return made;
}

void launch_graph(const PluginLaunch* launch, void* graph, PluginStatus* status) {
  if (!report(cudaSetDevice(launch->device), status)) return;
  report(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), static_cast<cudaStream_t>(launch->stream)), status);
}

void release_graph(int32_t device, void* graph, PluginStatus* status) {
  if (report(cudaSetDevice(device), status)) report(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)), status);
}

}  // namespace gavel::cuda
