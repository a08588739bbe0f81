// The contract between the addon (the host) and a device plugin: one exported function, two tables, plain structs.
// Both sides are compiled from the same sources and prove it by size and build id before anything else is called.
// Nothing is thrown across, nothing allocated on one side is freed on the other, and a kernel's parameters are the
// trivially copyable struct of native/ops. Kernels are enqueued: `synchronize` waits and reports what went wrong.
#pragma once
#include <cstdint>
#include <cstdio>
#include <type_traits>

#include "core/status.h"

namespace gavel {

struct PluginStatus {
  int32_t code = 0;  // gavel::Code
  char message[508] = {};

  bool ok() const { return code == 0; }
  void set(Code value, const char* text) {
    code = static_cast<int32_t>(value);
    std::snprintf(message, sizeof(message), "%s", text);
  }
};
static_assert(std::is_trivially_copyable_v<PluginStatus> && sizeof(PluginStatus) == 512);

// What the host says of itself.
struct PluginHost {
  uint32_t size = sizeof(PluginHost);
  const char* build_id = nullptr;
};

struct PluginDevice {
  char name[256] = {};
  uint64_t memory_bytes = 0;
  int32_t major = 0;  // compute capability
  int32_t minor = 0;
};

// Where a kernel runs: a device and one of its streams (null: the device's default stream).
struct PluginLaunch {
  int32_t device = 0;
  void* stream = nullptr;
};

// One op of native/ops by its registry name; `parameters` points to its struct, whose tensors live on the device.
// `supports` answers before anything is enqueued, so that a plan is refused when it is made. backward may be null.
struct PluginKernel {
  const char* name;
  void (*forward)(const PluginLaunch* launch, const void* parameters, PluginStatus* status);
  void (*backward)(const PluginLaunch* launch, const void* parameters, PluginStatus* status);
  bool (*supports)(const void* parameters);
};

// Filled by the plugin. The strings and the kernel list live as long as the plugin is loaded (always: it is never
// closed).
struct PluginBackend {
  uint32_t size = sizeof(PluginBackend);
  const char* build_id = nullptr;
  int32_t (*device_count)(PluginStatus* status) = nullptr;
  void (*device_info)(int32_t device, PluginDevice* info, PluginStatus* status) = nullptr;
  void* (*allocate)(int32_t device, uint64_t size_bytes, PluginStatus* status) = nullptr;
  void (*release)(int32_t device, void* memory, PluginStatus* status) = nullptr;
  void (*copy_to_device)(const PluginLaunch* launch, void* to, const void* from, uint64_t size_bytes,
                         PluginStatus* status) = nullptr;
  void (*copy_to_host)(const PluginLaunch* launch, void* to, const void* from, uint64_t size_bytes,
                       PluginStatus* status) = nullptr;
  void (*synchronize)(const PluginLaunch* launch, PluginStatus* status) = nullptr;
  const PluginKernel* kernels = nullptr;
  int32_t num_kernels = 0;
};

// Exported by the plugin under this name. False, with `status` filled, when host and plugin do not fit together.
using PluginInit = bool (*)(const PluginHost* host, PluginBackend* backend, PluginStatus* status);
inline constexpr const char* kPluginInitName = "gavel_plugin_init";

}  // namespace gavel
