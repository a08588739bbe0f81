// row_mix: the gradient of a table row belongs to one block, which walks the index list and adds what names it.
#include "cuda/elements.cuh"
#include "cuda/kernels.h"
#include "cuda/matches.cuh"

namespace gavel::cuda {
namespace {

template <class T>
struct Forward {
  T* out;
  const T *base, *table, *extra;
  const int32_t* index;
  const float* weights;
  int64_t columns, table_rows;
  int32_t taps;
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / columns, c = i % columns;
    float sum = base == nullptr ? 0.0f : to_float(base[i]);
    for (int64_t place = row * taps; place < (row + 1) * taps; ++place) {
      const int64_t n = index[place];
      if (n < 0) continue;
      const float value = to_float(n < table_rows ? table[n * columns + c] : extra[c]);
      sum = weights == nullptr ? __fadd_rn(sum, value) : __fmaf_rn(weights[place], value, sum);
    }
    out[i] = from_float<T>(sum);
  }
};

template <class T>
struct AddToBase {
  T* grad_base;
  const T* grad_out;
  __device__ void operator()(int64_t i) const {
    grad_base[i] = from_float<T>(__fadd_rn(to_float(grad_base[i]), to_float(grad_out[i])));
  }
};

// A block adds up table row first + blockIdx.x, 256 columns at blockIdx.y.
template <class T, class G>
__global__ void __launch_bounds__(kMatchThreads)
    table_kernel(G* grad, bool accumulate, int64_t first, const T* grad_out, const int32_t* index, const float* weights,
                 int64_t places, int32_t taps, int64_t columns) {
  const int64_t row = first + blockIdx.x, c = int64_t{blockIdx.y} * kMatchThreads + threadIdx.x;
  float sum = 0.0f;
  for_matches(
      0, places, [&](int64_t place) { return index[place] == row; },
      [&](int64_t place) {
        if (c >= columns) return true;
        const float value = to_float(grad_out[place / taps * columns + c]);
        sum = weights == nullptr ? __fadd_rn(sum, value) : __fmaf_rn(weights[place], value, sum);
        return true;
      });
  if (c >= columns) return;
  G& to = grad[int64_t{blockIdx.x} * columns + c];
  to = from_float<G>(accumulate ? __fadd_rn(to_float(to), sum) : sum);
}

template <class T>
void backward(Launch& launch, const RowMix& p) {
  const int64_t rows = p.out.rows(), columns = p.out.cols(), places = rows * p.taps;
  const T* const grad_out = static_cast<const T*>(p.grad_out.data);
  if (p.grad_base) {
    const AddToBase<T> body{static_cast<T*>(p.grad_base.data), grad_out};
    for_elements<1>(launch, body, rows * columns);
  }
  const auto add = [&](auto type, void* grad, bool accumulate, int64_t first, int64_t count) {
    using G = decltype(type);
    launch.run(table_kernel<T, G>, blocks(count, divide_up(columns, kMatchThreads)), kMatchThreads, 0,
               static_cast<G*>(grad), accumulate, first, grad_out, p.index, p.weights, places, p.taps, columns);
  };
  if (p.grad_table)
    with_element(p.grad_table.dtype,
                 [&](auto type) { add(type, p.grad_table.data, p.accumulate_table, 0, p.table.rows()); });
  if (p.grad_extra) add(float{}, p.grad_extra.data, true, p.table.rows(), 1);
}

}  // namespace

void row_mix_forward(Launch& launch, const RowMix& p) {
  if (!launch.expect(p.table.layout == Layout::rows && p.table.dtype == p.out.dtype,
                     "Expected `row_mix` on CUDA to get a table in rows of the dtype of out."))
    return;
  with_element(p.out.dtype, [&](auto type) {
    using T = decltype(type);
    const Forward<T> body{static_cast<T*>(p.out.data),
                          static_cast<const T*>(p.base.data),
                          static_cast<const T*>(p.table.data),
                          static_cast<const T*>(p.extra.data),
                          p.index,
                          p.weights,
                          p.out.cols(),
                          p.table.rows(),
                          p.taps};
    for_elements<1>(launch, body, p.out.shape.count());
  });
}

void row_mix_backward(Launch& launch, const RowMix& p) {
  with_element(p.out.dtype, [&](auto type) { backward<decltype(type)>(launch, p); });
}

}  // namespace gavel::cuda
