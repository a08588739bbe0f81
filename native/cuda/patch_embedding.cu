// patch_embedding: pixels are put in order and rounded to the weight's dtype, then linear's products do the rest.
#include "cuda/elements.cuh"
#include "cuda/kernels.h"

namespace gavel::cuda {
namespace {

template <class T>
struct Gather {
  T* gathered;
  const float* pixels;
  const int32_t* order;
  int64_t columns;
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / columns;
    gathered[i] = from_float<T>(pixels[(order == nullptr ? row : order[row]) * columns + i % columns]);
  }
};

}  // namespace

void patch_embedding_forward(Launch& launch, const PatchEmbedding& p) {
  with_element(p.gathered.dtype, [&](auto type) {
    using T = decltype(type);
    const Gather<T> body{static_cast<T*>(p.gathered.data), p.pixels, p.order, p.weight.cols()};
    for_elements<1>(launch, body, p.gathered.shape.count());
  });
  linear_forward(launch, linear_of(p));
}

void patch_embedding_backward(Launch& launch, const PatchEmbedding& p) { linear_backward(launch, linear_of(p)); }

}  // namespace gavel::cuda
