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
  char message[492] = {};
  uint64_t requested_bytes = 0, free_bytes = 0;  // where memory ran out

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

// What the device's kernels stand on. Versions are "major.minor" of CUDA, the driver's empty where there is none; of
// cuBLASLt its own, or "none: " and the reason.
struct PluginVersions {
  char driver[16] = {}, runtime[16] = {};
  char cublaslt[224] = {};
};

// What a call promises of its bits. Bitwise: a row's do not depend on what else is in the batch. Fastest: sums may be
// cut where that fills the device, so they do; the same batch has the same bits again.
enum class Exactness : uint8_t { bitwise, fastest };

// Where a kernel runs: a device, one of its streams (null: the device's default stream), and memory of that device for
// what the kernel keeps while it runs. Launches of one stream may share their workspace.
struct PluginLaunch {
  int32_t device = 0;
  void* stream = nullptr;
  void* workspace = nullptr;
  uint64_t workspace_bytes = 0;
  Exactness exactness = Exactness::bitwise;
};

// One op of native/ops by its registry name; `parameters` points to its struct, whose pointers are of the device, but
// for those that ops/operands.h calls of the host. `workspace` gives the bytes that a call will take on the
// device and with the exactness of `launch`, and refuses in `status` what the kernel cannot do, before anything is
// enqueued: a plan fails when it is made. backward may be null.
struct PluginKernel {
  const char* name;
  void (*forward)(const PluginLaunch* launch, const void* parameters, PluginStatus* status);
  void (*backward)(const PluginLaunch* launch, const void* parameters, PluginStatus* status);
  uint64_t (*workspace)(const PluginLaunch* launch, const void* parameters, bool backward, PluginStatus* status);
};

// Filled by the plugin. The strings and the kernel list live as long as the plugin is loaded (always: it is never
// closed). What takes a launch is enqueued: memory of the host that is read may change when the call returns, unless it
// is of allocate_host; memory of the host that is written is there after `synchronize`.
struct PluginBackend {
  uint32_t size = sizeof(PluginBackend);
  const char* build_id = nullptr;
  int32_t (*device_count)(PluginStatus* status) = nullptr;
  void (*device_info)(int32_t device, PluginDevice* info, PluginStatus* status) = nullptr;
  void (*versions)(PluginVersions* versions) = nullptr;
  // Products that cuBLASLt was given since the process began, those on trial left out.
  uint64_t (*library_products)() = nullptr;
  void* (*allocate)(int32_t device, uint64_t size_bytes, PluginStatus* status) = nullptr;
  void (*release)(int32_t device, void* memory, PluginStatus* status) = nullptr;
  void (*memory_info)(int32_t device, uint64_t* free_bytes, uint64_t* total_bytes, PluginStatus* status) = nullptr;
  void (*copy_to_device)(const PluginLaunch* launch, void* to, const void* from, uint64_t size_bytes,
                         PluginStatus* status) = nullptr;
  void (*copy_to_host)(const PluginLaunch* launch, void* to, const void* from, uint64_t size_bytes,
                       PluginStatus* status) = nullptr;
  // Within the device; the two do not overlap.
  void (*copy)(const PluginLaunch* launch, void* to, const void* from, uint64_t size_bytes,
               PluginStatus* status) = nullptr;
  void (*clear)(const PluginLaunch* launch, void* to, uint64_t size_bytes, PluginStatus* status) = nullptr;
  void (*synchronize)(const PluginLaunch* launch, PluginStatus* status) = nullptr;
  // Memory of the host that the device reads and writes by itself, when the copy runs.
  void* (*allocate_host)(int32_t device, uint64_t size_bytes, PluginStatus* status) = nullptr;
  void (*release_host)(int32_t device, void* memory, PluginStatus* status) = nullptr;
  // A place in a stream: `wait` returns when everything enqueued before the last `mark` has run.
  void* (*make_event)(int32_t device, PluginStatus* status) = nullptr;
  void (*release_event)(int32_t device, void* event, PluginStatus* status) = nullptr;
  void (*mark)(const PluginLaunch* launch, void* event, PluginStatus* status) = nullptr;
  void (*wait)(const PluginLaunch* launch, void* event, PluginStatus* status) = nullptr;
  // Between the two, what is enqueued with this launch, whose stream begin_capture sets, is kept instead of run: a
  // graph that launch_graph enqueues, as often as wanted. Null, with a status, where it cannot be had. No memory of the
  // host is named meanwhile. A graph is released when it does not run.
  void (*begin_capture)(PluginLaunch* launch, PluginStatus* status) = nullptr;
  void* (*end_capture)(PluginLaunch* launch, PluginStatus* status) = nullptr;
  void (*launch_graph)(const PluginLaunch* launch, void* graph, PluginStatus* status) = nullptr;
  void (*release_graph)(int32_t device, void* graph, PluginStatus* status) = nullptr;
  const PluginKernel* kernels = nullptr;
  int32_t num_kernels = 0;
};

// Exported by the plugin under this name. False, with `status` filled, when host and plugin do not fit together.
using PluginInit = bool (*)(const PluginHost* host, PluginBackend* backend, PluginStatus* status);
inline constexpr const char* kPluginInitName = "gavel_plugin_init";

}  // namespace gavel
