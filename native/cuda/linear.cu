// linear: x W^T, dy W and dy^T x over the packed weight as it lies. Tiles are chosen by size; no choice changes a bit.
// The fastest mode may cut the depth of the first two where rows are few; where they are many, cuBLASLt may serve.
#include "cuda/column_sums.cuh"
#include "cuda/kernels.h"
#include "cuda/library_product.cuh"
#include "cuda/split_gemm.cuh"

namespace gavel::cuda {
namespace {

template <class T>
struct StoreOut {
  static constexpr bool kResumes = false;
  T* out;
  const T* residual;
  const float* wide_bias;
  const T* bias;
  int64_t rows, columns;
  bool whole;  // rows are whole pieces of 16 bytes

  template <int kCount>
  __device__ void store(int64_t row, int64_t column, float (&values)[kCount]) const {
    const int64_t left = columns - column, at = row * columns + column;
    if (row >= rows || left <= 0) return;
    if (bias != nullptr) add(bias + column, left, values);
    if (wide_bias != nullptr) add(wide_bias + column, left, values);
    if (residual != nullptr) add(residual + at, left, values);
    Pack<T, kCount> result;
#pragma unroll
    for (int i = 0; i < kCount; ++i) result.values[i] = from_float<T>(values[i]);
    store_part_of<kCount>(out + at, result, left, whole);
  }

 private:
  template <int kCount, class From>
  __device__ __forceinline__ void add(const From* from, int64_t left, float (&values)[kCount]) const {
    const auto added = load_part_of<kCount>(from, left, whole);
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = __fadd_rn(values[i], to_float(added.values[i]));
  }
};

template <class T>
struct StoreGradX {
  static constexpr bool kResumes = false;
  T* grad;
  bool accumulate;
  int64_t rows, columns;
  bool whole;

  template <int kCount>
  __device__ void store(int64_t row, int64_t column, float (&values)[kCount]) const {
    const int64_t left = columns - column, at = row * columns + column;
    if (row >= rows || left <= 0) return;
    Pack<T, kCount> result;
    if (accumulate) result = load_part_of<kCount>(grad + at, left, whole);
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      result.values[i] = from_float<T>(accumulate ? __fadd_rn(values[i], to_float(result.values[i])) : values[i]);
    store_part_of<kCount>(grad + at, result, left, whole);
  }
};

// Adds two pieces of a gradient in the activations' dtype.
template <class T, int kLanes>
struct AddTo {
  T* to;
  const T* from;
  __device__ void operator()(int64_t i) const {
    auto sums = load_pack<T, kLanes>(to + i);
    const auto added = load_pack<T, kLanes>(from + i);
    for (int j = 0; j < kLanes; ++j)
      sums.values[j] = from_float<T>(__fadd_rn(to_float(sums.values[j]), to_float(added.values[j])));
    store_pack(to + i, sums);
  }
};

template <class T>
struct RowsOf {
  const T* data;
  int64_t columns;
  template <int kLanes>
  __device__ void add(int64_t row, int64_t column, float (&sums)[kLanes]) const {
    const auto values = load_pack<T, kLanes>(data + row * columns + column);
#pragma unroll
    for (int i = 0; i < kLanes; ++i) sums[i] = __fadd_rn(sums[i], to_float(values.values[i]));
  }
};

template <class T>
void forward(Launch& launch, const Linear& p) {
  const RowMajor<T> x(p.x.data, p.x.rows(), p.x.cols());
  const Panels<T> weight(p.weight);
  const bool wide = p.bias.dtype == DType::f32 && sizeof(T) == 2;
  const StoreOut<T> store{static_cast<T*>(p.out.data),
                          static_cast<const T*>(p.residual.data),
                          wide ? p.bias.f32() : nullptr,
                          wide ? nullptr : static_cast<const T*>(p.bias.data),
                          p.x.rows(),
                          p.weight.rows(),
                          whole_packs<T>(p.weight.rows(), {p.out.data, p.residual.data, p.bias.data})};
  float* const sums = parts_workspace(launch);
  LibraryProduct library(launch, {ProductKind::forward, p.x.dtype, x.extent, weight.extent, x.depth, p.x.data,
                                  p.weight.data, p.out.data, p.residual.data, p.bias.data, p.bias.dtype});
  if (library.run()) return;
  switch (product_tile(launch.processors(), p.x.rows(), p.weight.rows())) {
    case ProductTile::low:
      split_gemm<T, LowTile>(launch, sums, x, weight, x.depth, store);
      break;
    case ProductTile::middle:
      split_gemm<T, MiddleTile>(launch, sums, x, weight, x.depth, store);
      break;
    case ProductTile::large:
      gemm<T, LargeTile>(launch, x, weight, x.depth, store);
      break;
  }
  library.judge();
}

template <class T>
void backward_x(Launch& launch, const Linear& p) {
  const int64_t rows = p.x.rows(), n = p.weight.rows(), k = p.weight.cols();
  const RowMajor<T> grad_out(p.grad_out.data, rows, n);
  const PanelsTransposed<T> weight(p.weight);
  const StoreGradX<T> store{static_cast<T*>(p.grad_x.data), p.accumulate_x, rows, k,
                            whole_packs<T>(k, {p.grad_x.data})};
  float* const sums = parts_workspace(launch);
  LibraryProduct library(launch, {ProductKind::grad_x, p.x.dtype, rows, n, k, p.grad_out.data, p.weight.data,
                                  p.grad_x.data, p.accumulate_x ? p.grad_x.data : nullptr});
  if (library.run()) return;
  if (rows <= 64 || !fills<LargeTile>(launch, rows, k)) {
    split_gemm<T, MiddleTile>(launch, sums, grad_out, weight, n, store);
  } else {
    gemm<T, LargeTile>(launch, grad_out, weight, n, store);
  }
  library.judge();
}

template <class T>
void backward_weight(Launch& launch, const Linear& p) {
  const int64_t rows = p.x.rows(), n = p.weight.rows(), k = p.weight.cols();
  const ColumnMajor<T> grad_out(p.grad_out.data, rows, n), x(p.x.data, rows, k);
  const AddToPanels<T> store{p.grad_weight.f32(), n, k};
  LibraryProduct library(
      launch, {ProductKind::grad_weight, p.x.dtype, rows, n, k, p.grad_out.data, p.x.data, p.grad_weight.data});
  if (library.run()) return;
  if (n <= 64 || k <= 64 || !fills<LargeTile>(launch, n, k)) {
    gemm<T, MiddleTile>(launch, grad_out, x, rows, store);
  } else {
    gemm<T, LargeTile>(launch, grad_out, x, rows, store);
  }
}

template <class T>
void backward(Launch& launch, const Linear& p) {
  const int64_t rows = p.x.rows(), n = p.weight.rows();
  if (p.grad_x) backward_x<T>(launch, p);
  if (p.grad_weight) backward_weight<T>(launch, p);
  const T* const grad_out = static_cast<const T*>(p.grad_out.data);
  if (p.grad_bias)
    add_column_sums<T>(launch, RowsOf<T>{grad_out, n}, p.grad_bias.f32(), rows, n, whole_packs<T>(n, {grad_out}));
  T* const grad_residual = static_cast<T*>(p.grad_residual.data);
  if (grad_residual != nullptr)
    with_lanes<T>(rows * n, {grad_residual, grad_out}, [&](auto lanes) {
      for_elements<lanes()>(launch, AddTo<T, lanes()>{grad_residual, grad_out}, rows * n);
    });
}

bool supported(Launch& launch, const Linear& p) {
  const bool known = p.x.dtype == DType::f32 || p.x.dtype == DType::bf16;
  return launch.expect(known && p.weight.dtype == p.x.dtype && p.weight.layout == Layout::panels,
                       "Expected fp32 or bf16 rows and a packed weight of their dtype for `linear` on CUDA.");
}

}  // namespace

void linear_forward(Launch& launch, const Linear& p) {
  if (!supported(launch, p)) return;
  with_element(p.x.dtype, [&](auto type) { forward<decltype(type)>(launch, p); });
}

void linear_backward(Launch& launch, const Linear& p) {
  if (!supported(launch, p) || p.x.rows() == 0) return;
  with_element(p.x.dtype, [&](auto type) { backward<decltype(type)>(launch, p); });
}

}  // namespace gavel::cuda
