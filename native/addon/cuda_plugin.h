// Finds and loads the CUDA plugin that lies beside this binary (gavel-cuda.so), or the file that the environment
// variable GAVEL_CUDA_PLUGIN names in its place (a test device), once per process. Without plugin, driver or device
// everything else works; the reason is kept as a Status for whoever asks for 'cuda'. No Node-API in here.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/plugin.h"
#include "core/status.h"

namespace gavel {

/// The loaded plugin's table, or null with `status` saying why not: no plugin file, one that does not load, another
/// build. Loaded on the first call, never unloaded; safe from any thread.
const PluginBackend* cuda_backend(Status* status);

struct CudaProbe {
  Status status;  // ok exactly when there is at least one usable device
  std::vector<PluginDevice> devices;
  bool has_plugin = false;
  PluginVersions versions;  // where there is a plugin
};

/// Plugin, driver and devices as they are now.
CudaProbe probe_cuda();

/// Device `index` for an engine. Errors: device_unavailable with the reason.
Status open_cuda(int32_t index, std::unique_ptr<Device>* device);

}  // namespace gavel
