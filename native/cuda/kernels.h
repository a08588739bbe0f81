// Declarations of the plugin's ops, expanded from the registry: one file an op with the stem of native/ops. A function
// enqueues and returns; run to measure it only counts its workspace (launch.cuh).
#pragma once
#include "ops/all.h"

namespace gavel::cuda {

class Launch;

#define GAVEL_OP(name, Struct, backward)                \
  void name##_forward(Launch& launch, const Struct& p); \
  void name##_backward(Launch& launch, const Struct& p);
GAVEL_OPS(GAVEL_OP)
#undef GAVEL_OP

}  // namespace gavel::cuda
