// L2 norm over several fp32 gradients, summed in double by fixed chunks of 4096 elements in order; finite says whether
// every element is.
#pragma once
#include "core/tensor.h"

namespace gavel {

struct GlobalNorm {
  const float* const* grads = nullptr;  // [num_grads]
  const int64_t* counts = nullptr;      // [num_grads]
  int32_t num_grads = 0;
  double* norm = nullptr;  // out
  bool* finite = nullptr;  // out
};

}  // namespace gavel
