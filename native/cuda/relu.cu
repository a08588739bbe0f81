// relu: NaN stays, and the gradient at 0 is 0.
#include "cuda/kernels.h"
#include "cuda/pointwise.cuh"

namespace gavel::cuda {
namespace {

struct Function {
  __device__ float value(float x) const { return x <= 0.0f ? 0.0f : x; }
  __device__ float gradient(float x, float grad) const { return x <= 0.0f ? 0.0f : grad; }
};

}  // namespace

void relu_forward(Launch& launch, const Relu& p) { pointwise_forward(launch, p, Function{}); }
void relu_backward(Launch& launch, const Relu& p) { pointwise_backward(launch, p, Function{}); }

}  // namespace gavel::cuda
