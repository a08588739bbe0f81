// The kernels of the CUDA plugin, one file per op with the stem of native/ops. A function enqueues and returns; what it
// refuses or fails at stands in `status`.
#pragma once
#include "core/plugin.h"

namespace gavel::cuda {

void rms_norm_forward(const PluginLaunch* launch, const void* parameters, PluginStatus* status);
bool rms_norm_supports(const void* parameters);

}  // namespace gavel::cuda
