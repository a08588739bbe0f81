// gather_rows: the gradient of a row asked for more than once is added by the block that asked first, in order.
#include "cuda/elements.cuh"
#include "cuda/kernels.h"
#include "cuda/matches.cuh"

namespace gavel::cuda {
namespace {

template <class To, class From, int kLanes>
__device__ Pack<To, kLanes> converted(const Pack<From, kLanes>& from) {
  Pack<To, kLanes> to;
  for (int i = 0; i < kLanes; ++i) {
    if constexpr (std::is_same_v<To, From>) {
      to.values[i] = from.values[i];
    } else {
      to.values[i] = from_float<To>(to_float(from.values[i]));
    }
  }
  return to;
}

template <class Out, class T, int kLanes>
struct Forward {
  Out* out;
  const T* x;
  const int32_t* rows;
  int64_t columns;
  __device__ void operator()(int64_t i) const {
    store_pack(out + i, converted<Out>(load_pack<T, kLanes>(x + rows[i / columns] * columns + i % columns)));
  }
};

template <class Out, class T, int kLanes>
__global__ void __launch_bounds__(kMatchThreads, 1)
    backward_kernel(T* grad_x, const Out* grad_out, const int32_t* rows, int64_t count, int64_t columns) {
  const int64_t own = blockIdx.x;
  const int32_t row = rows[own];
  bool first = true;
  for_matches(
      0, own, [&](int64_t s) { return rows[s] == row; }, [&](int64_t) { return first = false; });
  if (!first) return;
  __syncthreads();
  for_matches(
      own, count, [&](int64_t s) { return rows[s] == row; },
      [&](int64_t s) {
        for (int64_t k = threadIdx.x * kLanes; k < columns; k += kMatchThreads * kLanes) {
          T* const to = grad_x + row * columns + k;
          const auto added = load_pack<Out, kLanes>(grad_out + s * columns + k);
          auto sums = load_pack<T, kLanes>(to);
          for (int i = 0; i < kLanes; ++i)
            sums.values[i] = from_float<T>(__fadd_rn(to_float(sums.values[i]), to_float(added.values[i])));
          store_pack(to, sums);
        }
        return true;
      });
}

// body(Out, T): an out of fp32 or of x's own type.
template <class Body>
void with_types(const GatherRows& p, const Body& body) {
  with_element(p.x.dtype, [&](auto type) {
    if (p.out.dtype == p.x.dtype) {
      body(type, type);
    } else {
      body(float{}, type);
    }
  });
}

}  // namespace

void gather_rows_forward(Launch& launch, const GatherRows& p) {
  with_types(p, [&](auto out, auto type) {
    using Out = decltype(out);
    using T = decltype(type);
    with_lanes<T>(p.x.cols(), {p.out.data, p.x.data}, [&](auto lanes) {
      const Forward<Out, T, lanes()> body{static_cast<Out*>(p.out.data), static_cast<const T*>(p.x.data), p.rows,
                                          p.x.cols()};
      for_elements<lanes()>(launch, body, p.out.shape.count());
    });
  });
}

void gather_rows_backward(Launch& launch, const GatherRows& p) {
  if (!p.grad_x) return;
  with_types(p, [&](auto out, auto type) {
    using Out = decltype(out);
    using T = decltype(type);
    if (!p.accumulate_x) launch.zero(p.grad_x.data, static_cast<size_t>(p.x.shape.count()) * sizeof(T));
    with_lanes<T>(p.x.cols(), {p.grad_x.data, p.grad_out.data}, [&](auto lanes) {
      launch.run(backward_kernel<Out, T, lanes()>, blocks(p.out.rows()), kMatchThreads, 0,
                 static_cast<T*>(p.grad_x.data), static_cast<const Out*>(p.grad_out.data), p.rows, p.out.rows(),
                 p.x.cols());
    });
  });
}

}  // namespace gavel::cuda
