// Heads made wider with zeros or narrower; the backward is the op with the sizes exchanged.
#include "cuda/elements.cuh"
#include "cuda/kernels.h"

namespace gavel::cuda {
namespace {

template <class T>
struct Copy {
  T* to;
  const T* from;
  int64_t to_size, from_size;
  __device__ void operator()(int64_t i) const {
    const int64_t head = i / to_size, column = i % to_size;
    to[i] = column < from_size ? from[head * from_size + column] : T{};
  }
};

void copy_heads(Launch& launch, const Tensor& to, const Tensor& from, int64_t to_size, int64_t from_size) {
  with_element(to.dtype, [&](auto type) {
    using T = decltype(type);
    const Copy<T> body{static_cast<T*>(to.data), static_cast<const T*>(from.data), to_size, from_size};
    for_elements<1>(launch, body, to.shape.count());
  });
}

}  // namespace

void resize_heads_forward(Launch& launch, const ResizeHeads& p) { copy_heads(launch, p.out, p.x, p.to, p.from); }
void resize_heads_backward(Launch& launch, const ResizeHeads& p) {
  if (p.grad_x) copy_heads(launch, p.grad_x, p.grad_out, p.from, p.to);
}

}  // namespace gavel::cuda
