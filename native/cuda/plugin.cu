// The CUDA plugin's one door (core/plugin.h): checks that host and plugin were built together, then hands over the
// table, whose kernels are those of the registry in its order.
#include <cuda_runtime.h>

#include <cstring>

#include "core/plugin.h"
#include "cuda/kernels.h"
#include "cuda/launch.cuh"
#include "cuda/library_product.cuh"
#include "cuda/runtime.h"
#include "gavel_build_id.h"

namespace gavel::cuda {
namespace {

template <class Struct, void (*kFunction)(Launch&, const Struct&)>
void enqueue(const PluginLaunch* launch, const void* parameters, PluginStatus* status) {
  if (!report(cudaSetDevice(launch->device), status)) return;
  Launch one(*launch, status);
  kFunction(one, *static_cast<const Struct*>(parameters));
}

template <class Struct, void (*kFunction)(Launch&, const Struct&)>
uint64_t measure(const PluginLaunch* launch, const void* parameters, PluginStatus* status) {
  Launch one(*launch, status, true);
  kFunction(one, *static_cast<const Struct*>(parameters));
  return one.used();
}

#define GAVEL_BACKWARD_true(name, Struct) name##_backward
#define GAVEL_BACKWARD_false(name, Struct) name##_forward
#define GAVEL_ENQUEUE_true(name, Struct) enqueue<Struct, name##_backward>
#define GAVEL_ENQUEUE_false(name, Struct) nullptr

constexpr PluginKernel kKernels[] = {
#define GAVEL_OP(name, Struct, has_backward)                                                                    \
  {#name, enqueue<Struct, name##_forward>, GAVEL_ENQUEUE_##has_backward(name, Struct),                          \
   [](const PluginLaunch* launch, const void* parameters, bool backward, PluginStatus* status) -> uint64_t {    \
     return backward ? measure<Struct, GAVEL_BACKWARD_##has_backward(name, Struct)>(launch, parameters, status) \
                     : measure<Struct, name##_forward>(launch, parameters, status);                             \
   }},
    GAVEL_OPS(GAVEL_OP)
#undef GAVEL_OP
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
  backend->versions = cuda::versions;
  backend->library_products = cuda::library_products;
  backend->allocate = cuda::allocate;
  backend->release = cuda::release;
  backend->memory_info = cuda::memory_info;
  backend->copy_to_device = cuda::copy_to_device;
  backend->copy_to_host = cuda::copy_to_host;
  backend->copy = cuda::copy;
  backend->clear = cuda::clear;
  backend->synchronize = cuda::synchronize;
  backend->allocate_host = cuda::allocate_host;
  backend->release_host = cuda::release_host;
  backend->make_event = cuda::make_event;
  backend->release_event = cuda::release_event;
  backend->mark = cuda::mark;
  backend->wait = cuda::wait;
  backend->begin_capture = cuda::begin_capture;
  backend->end_capture = cuda::end_capture;
  backend->launch_graph = cuda::launch_graph;
  backend->release_graph = cuda::release_graph;
  backend->kernels = cuda::kKernels;
  backend->num_kernels = static_cast<int32_t>(sizeof(cuda::kKernels) / sizeof(cuda::kKernels[0]));
  return true;
}
