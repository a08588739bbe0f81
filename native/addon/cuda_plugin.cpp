#include "addon/cuda_plugin.h"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>

#include "core/build_id.h"

namespace gavel {
namespace {

constexpr const char* kPluginFile = "gavel-cuda.so";
constexpr const char* kPluginVariable = "GAVEL_CUDA_PLUGIN";

struct Loaded {
  PluginBackend backend;
  Status status;
};

Status unavailable(std::string message) { return Status::error(Code::device_unavailable, std::move(message)); }

// The folder of the binary this function is part of; empty when the loader does not know.
std::string own_folder() {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0 || info.dli_fname == nullptr) return {};
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

Status load(PluginBackend* backend) {
  const char* const named = std::getenv(kPluginVariable);
  const std::string path = named != nullptr ? named : own_folder() + "/" + kPluginFile;
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = dlerror();
    return unavailable(
               "Expected the CUDA plugin " +
               std::string(named != nullptr ? std::string("that ") + kPluginVariable + " names" : "beside the addon") +
               " but it does not load: " + std::string(why ? why : path.c_str()) +
               ". Build it on a machine with the CUDA toolkit: npm run build")
        .with("plugin", path);
  }
  const auto init = reinterpret_cast<PluginInit>(dlsym(library, kPluginInitName));
  if (init == nullptr)
    return unavailable("Expected " + path + " to export gavel_plugin_init but it does not. Build it again");
  PluginHost host;
  host.build_id = build_id();
  PluginStatus status;
  if (!init(&host, backend, &status)) return unavailable(std::string(status.message)).with("plugin", path);
  return Status::success();
}

}  // namespace

const PluginBackend* cuda_backend(Status* status) {
  // Never destroyed: kernels may still be asked for while the process ends.
  static const Loaded& loaded = *[] {
    auto* result = new Loaded;
    result->status = load(&result->backend);
    return result;
  }();
  *status = loaded.status;
  return loaded.status.ok() ? &loaded.backend : nullptr;
}

CudaProbe probe_cuda() {
  CudaProbe probe;
  const PluginBackend* backend = cuda_backend(&probe.status);
  if (backend == nullptr) return probe;
  probe.has_plugin = true;
  backend->versions(&probe.versions);
  PluginStatus status;
  const int32_t count = backend->device_count(&status);
  if (!status.ok() || count == 0) {
    const bool has_driver = dlopen("libcuda.so.1", RTLD_LAZY) != nullptr;
    const std::string why = !has_driver   ? "there is no NVIDIA driver (libcuda.so.1)."
                            : status.ok() ? "the driver reports none"
                                          : status.message;
    probe.status = unavailable("Expected a CUDA device but found none: " + why);
    return probe;
  }
  for (int32_t device = 0; device < count; ++device) {
    PluginDevice info;
    backend->device_info(device, &info, &status);
    if (!status.ok()) {
      probe.status = unavailable("CUDA device " + std::to_string(device) + " does not answer: " + status.message);
      return probe;
    }
    probe.devices.push_back(info);
  }
  return probe;
}

Status open_cuda(int32_t index, std::unique_ptr<Device>* device) {
  const CudaProbe probe = probe_cuda();
  if (!probe.status.ok()) return probe.status;
  const auto count = static_cast<int32_t>(probe.devices.size());
  if (index >= count) {
    return unavailable("Expected one of " + std::to_string(count) + " CUDA devices but received number " +
                       std::to_string(index) + ". They are counted from 0.");
  }
  Status status;
  *device = std::make_unique<Device>(*cuda_backend(&status), index);
  return status;
}

}  // namespace gavel
