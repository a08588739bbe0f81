// Ops that are one function of an element: out = f(x) and grad_x = grad_out * f'(x), `f` with value(x) and
// gradient(x, grad_out).
#pragma once
#include "cuda/elements.cuh"

namespace gavel::cuda {

template <class T, int kLanes, class Function>
struct PointwiseForward {
  T* out;
  const T* x;
  Function function;
  __device__ void operator()(int64_t i) const {
    const auto pack = load_pack<T, kLanes>(x + i);
    Pack<T, kLanes> result;
    for (int j = 0; j < kLanes; ++j) result.values[j] = from_float<T>(function.value(to_float(pack.values[j])));
    store_pack(out + i, result);
  }
};

template <class T, int kLanes, class Function>
struct PointwiseBackward {
  T* grad_x;
  const T *x, *grad_out;
  Function function;
  __device__ void operator()(int64_t i) const {
    const auto pack = load_pack<T, kLanes>(x + i), grads = load_pack<T, kLanes>(grad_out + i);
    Pack<T, kLanes> result;
    for (int j = 0; j < kLanes; ++j)
      result.values[j] = from_float<T>(function.gradient(to_float(pack.values[j]), to_float(grads.values[j])));
    store_pack(grad_x + i, result);
  }
};

template <class Struct, class Function>
void pointwise_forward(Launch& launch, const Struct& p, const Function& function) {
  with_element(p.x.dtype, [&](auto type) {
    using T = decltype(type);
    const int64_t count = p.x.shape.count();
    with_lanes<T>(count, {p.out.data, p.x.data}, [&](auto lanes) {
      const PointwiseForward<T, lanes(), Function> body{static_cast<T*>(p.out.data), static_cast<const T*>(p.x.data),
                                                        function};
      for_elements<lanes()>(launch, body, count);
    });
  });
}

template <class Struct, class Function>
void pointwise_backward(Launch& launch, const Struct& p, const Function& function) {
  if (!p.grad_x) return;
  with_element(p.x.dtype, [&](auto type) {
    using T = decltype(type);
    const int64_t count = p.x.shape.count();
    with_lanes<T>(count, {p.grad_x.data, p.x.data, p.grad_out.data}, [&](auto lanes) {
      const PointwiseBackward<T, lanes(), Function> body{static_cast<T*>(p.grad_x.data),
                                                         static_cast<const T*>(p.x.data),
                                                         static_cast<const T*>(p.grad_out.data), function};
      for_elements<lanes()>(launch, body, count);
    });
  });
}

}  // namespace gavel::cuda
