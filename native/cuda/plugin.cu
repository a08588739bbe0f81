// The CUDA plugin's one door (core/plugin.h): checks that host and plugin were built together, then hands over the
// table. CUDA's runtime is linked statically and the driver is found at run time, so the plugin loads on any machine
// and says in a status why it cannot run there.
#include <cuda_runtime.h>

#include <cstring>

#include "core/plugin.h"
#include "cuda/kernels.h"
#include "gavel_build_id.h"

namespace gavel::cuda {
namespace {

bool report(cudaError_t error, PluginStatus* status) {
  if (error == cudaSuccess) return true;
  const Code code = error == cudaErrorMemoryAllocation ? Code::out_of_memory : Code::device_unavailable;
  char text[sizeof(status->message)];
  std::snprintf(text, sizeof(text), "%s (%s)", cudaGetErrorString(error), cudaGetErrorName(error));
  status->set(code, text);
  return false;
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

void* allocate(int32_t device, uint64_t size_bytes, PluginStatus* status) {
  void* memory = nullptr;
  if (!report(cudaSetDevice(device), status) || !report(cudaMalloc(&memory, size_bytes), status)) return nullptr;
  return memory;
}

void release(int32_t device, void* memory, PluginStatus* status) {
  if (report(cudaSetDevice(device), status)) report(cudaFree(memory), status);
}

void copy(const PluginLaunch* launch, void* to, const void* from, uint64_t size_bytes, cudaMemcpyKind kind,
          PluginStatus* status) {
  if (!report(cudaSetDevice(launch->device), status)) return;
  report(cudaMemcpyAsync(to, from, size_bytes, kind, static_cast<cudaStream_t>(launch->stream)), status);
}

void copy_to_device(const PluginLaunch* launch, void* to, const void* from, uint64_t size_bytes, PluginStatus* status) {
  copy(launch, to, from, size_bytes, cudaMemcpyHostToDevice, status);
}

void copy_to_host(const PluginLaunch* launch, void* to, const void* from, uint64_t size_bytes, PluginStatus* status) {
  copy(launch, to, from, size_bytes, cudaMemcpyDeviceToHost, status);
}

void synchronize(const PluginLaunch* launch, PluginStatus* status) {
  if (!report(cudaSetDevice(launch->device), status)) return;
  report(cudaStreamSynchronize(static_cast<cudaStream_t>(launch->stream)), status);
}

constexpr PluginKernel kKernels[] = {
    {"rms_norm", rms_norm_forward, nullptr, rms_norm_supports},
};

}  // namespace
}  // namespace gavel::cuda

extern "C" __attribute__((visibility("default"))) bool gavel_plugin_init(const gavel::PluginHost* host,
                                                                         gavel::PluginBackend* backend,
                                                                         gavel::PluginStatus* status) {
  using namespace gavel;
  const bool sizes = host->size == sizeof(PluginHost) && backend->size == sizeof(PluginBackend);
  if (!sizes || std::strcmp(host->build_id, GAVEL_BUILD_ID) != 0) {
    char text[sizeof(status->message)];
    std::snprintf(text, sizeof(text), "the plugin is of build %s and the addon of another; build both again",
                  GAVEL_BUILD_ID);
    status->set(Code::device_unavailable, text);
    return false;
  }
  backend->build_id = GAVEL_BUILD_ID;
  backend->device_count = cuda::device_count;
  backend->device_info = cuda::device_info;
  backend->allocate = cuda::allocate;
  backend->release = cuda::release;
  backend->copy_to_device = cuda::copy_to_device;
  backend->copy_to_host = cuda::copy_to_host;
  backend->synchronize = cuda::synchronize;
  backend->kernels = cuda::kKernels;
  backend->num_kernels = static_cast<int32_t>(sizeof(cuda::kKernels) / sizeof(cuda::kKernels[0]));
  return true;
}
