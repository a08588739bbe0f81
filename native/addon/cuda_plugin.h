// Finds and loads the CUDA plugin that lies beside this binary (gavel-cuda.so), once per process. Without plugin,
// driver or device everything else works; the reason is kept as a Status for whoever asks for 'cuda'. No Node-API in
// here.
#pragma once
#include <string>
#include <vector>

#include "core/plugin.h"
#include "core/status.h"

namespace gavel {

/// The loaded plugin's table, or null with `status` saying why not: no plugin file, one that does not load, another
/// build. Loaded on the first call, never unloaded; safe from any thread.
const PluginBackend* cuda_backend(Status* status);

struct CudaProbe {
  Status status;  // ok exactly when there is at least one usable device
  std::vector<PluginDevice> devices;
};

/// Plugin, driver and devices as they are now.
CudaProbe probe_cuda();

}  // namespace gavel
