// swiglu and its gradient, one thread for 16 bytes of the result.
#include "cuda/device_math.cuh"
#include "cuda/elements.cuh"
#include "cuda/kernels.h"

namespace gavel::cuda {
namespace {

__device__ float sigmoid(float x) { return __fdiv_rn(1.0f, __fadd_rn(1.0f, exp_one(-x))); }

// Where element i of the result has its gate; the up value lies `columns` further.
__device__ int64_t gate_of(int64_t i, int64_t columns) { return i + i / columns * columns; }

template <class T, int kLanes>
struct Forward {
  T* out;
  const T* x;
  int64_t columns;
  __device__ void operator()(int64_t i) const {
    const int64_t at = gate_of(i, columns);
    const auto gates = load_pack<T, kLanes>(x + at), ups = load_pack<T, kLanes>(x + at + columns);
    Pack<T, kLanes> result;
    for (int j = 0; j < kLanes; ++j) {
      const float gate = to_float(gates.values[j]);
      result.values[j] = from_float<T>(__fmul_rn(__fmul_rn(gate, sigmoid(gate)), to_float(ups.values[j])));
    }
    store_pack(out + i, result);
  }
};

template <class T, int kLanes>
struct Backward {
  T* grad_x;
  const T *x, *grad_out;
  int64_t columns;
  __device__ void operator()(int64_t i) const {
    const int64_t at = gate_of(i, columns);
    const auto gates = load_pack<T, kLanes>(x + at), ups = load_pack<T, kLanes>(x + at + columns);
    const auto grads = load_pack<T, kLanes>(grad_out + i);
    Pack<T, kLanes> grad_gate, grad_up;
    for (int j = 0; j < kLanes; ++j) {
      const float gate = to_float(gates.values[j]), grad = to_float(grads.values[j]), s = sigmoid(gate);
      const float slope = __fmul_rn(s, __fmaf_rn(gate, __fsub_rn(1.0f, s), 1.0f));
      grad_gate.values[j] = from_float<T>(__fmul_rn(__fmul_rn(grad, to_float(ups.values[j])), slope));
      grad_up.values[j] = from_float<T>(__fmul_rn(grad, __fmul_rn(gate, s)));
    }
    store_pack(grad_x + at, grad_gate);
    store_pack(grad_x + at + columns, grad_up);
  }
};

}  // namespace

void swiglu_forward(Launch& launch, const Swiglu& p) {
  with_element(p.x.dtype, [&](auto type) {
    using T = decltype(type);
    const int64_t columns = p.out.cols();
    with_lanes<T>(columns, {p.out.data, p.x.data}, [&](auto lanes) {
      const Forward<T, lanes()> body{static_cast<T*>(p.out.data), static_cast<const T*>(p.x.data), columns};
      for_elements<lanes()>(launch, body, p.out.shape.count());
    });
  });
}

void swiglu_backward(Launch& launch, const Swiglu& p) {
  if (!p.grad_x) return;
  with_element(p.x.dtype, [&](auto type) {
    using T = decltype(type);
    const int64_t columns = p.out.cols();
    with_lanes<T>(columns, {p.grad_x.data, p.x.data, p.grad_out.data}, [&](auto lanes) {
      const Backward<T, lanes()> body{static_cast<T*>(p.grad_x.data), static_cast<const T*>(p.x.data),
                                      static_cast<const T*>(p.grad_out.data), columns};
      for_elements<lanes()>(launch, body, p.out.shape.count());
    });
  });
}

}  // namespace gavel::cuda
