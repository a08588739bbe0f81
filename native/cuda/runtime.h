// The plugin's table of device functions, apart from its kernels.
#pragma once
#include "core/plugin.h"

namespace gavel::cuda {

int32_t device_count(PluginStatus* status);
void device_info(int32_t device, PluginDevice* info, PluginStatus* status);
void versions(PluginVersions* versions);
void* allocate(int32_t device, uint64_t size_bytes, PluginStatus* status);
void release(int32_t device, void* memory, PluginStatus* status);
void memory_info(int32_t device, uint64_t* free_bytes, uint64_t* total_bytes, PluginStatus* status);
void copy_to_device(const PluginLaunch* launch, void* to, const void* from, uint64_t size_bytes, PluginStatus* status);
void copy_to_host(const PluginLaunch* launch, void* to, const void* from, uint64_t size_bytes, PluginStatus* status);
void copy(const PluginLaunch* launch, void* to, const void* from, uint64_t size_bytes, PluginStatus* status);
void clear(const PluginLaunch* launch, void* to, uint64_t size_bytes, PluginStatus* status);
void synchronize(const PluginLaunch* launch, PluginStatus* status);
void* allocate_host(int32_t device, uint64_t size_bytes, PluginStatus* status);
void release_host(int32_t device, void* memory, PluginStatus* status);
void* make_event(int32_t device, PluginStatus* status);
void release_event(int32_t device, void* event, PluginStatus* status);
void mark(const PluginLaunch* launch, void* event, PluginStatus* status);
void wait(const PluginLaunch* launch, void* event, PluginStatus* status);
void begin_capture(PluginLaunch* launch, PluginStatus* status);
void* end_capture(PluginLaunch* launch, PluginStatus* status);
void launch_graph(const PluginLaunch* launch, void* graph, PluginStatus* status);
void release_graph(int32_t device, void* graph, PluginStatus* status);

}  // namespace gavel::cuda
