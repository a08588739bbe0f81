// embedding: a thread puts 16 bytes of a row together; of a packed table they lie in pieces of 4 bytes. A token's
// gradient belongs to the block of its first occurrence, which adds all of them in ascending order.
#include "cuda/elements.cuh"
#include "cuda/kernels.h"
#include "cuda/matches.cuh"

namespace gavel::cuda {
namespace {

template <class T, int kLanes>
struct Forward {
  T* out;
  const T *table, *features;
  const int32_t *tokens, *sources, *feature_rows;
  int64_t columns;
  bool panels;
  __device__ void operator()(int64_t i) const {
    const int64_t t = i / columns, k = i % columns;
    constexpr DType kOrder = sizeof(T) == 2 ? DType::bf16 : DType::f32;
    constexpr int kRun = sizeof(T) == 2 && kLanes > 1 ? 2 : 1;  // of a row side by side in a step of panels
    const bool feature = feature_rows != nullptr && feature_rows[t] >= 0;
    const int32_t token = token_of(tokens, sources, t);
    if (feature || !panels)
      return store_pack(out + i, load_pack<T, kLanes>(feature ? features + feature_rows[t] * columns + k
                                                              : table + token * columns + k));
    Pack<T, kLanes> pack;
#pragma unroll
    for (int j = 0; j < kLanes; j += kRun) {
      const auto run = load_pack<T, kRun>(table + panel_index(token, k + j, columns, kOrder));
#pragma unroll
      for (int l = 0; l < kRun; ++l) pack.values[j + l] = run.values[l];
    }
    store_pack(out + i, pack);
  }
};

template <class T, int kLanes>
struct CopyFeatures {
  T* grad_features;
  const T* grad_out;
  const int32_t* feature_rows;
  int64_t columns;
  __device__ void operator()(int64_t i) const {
    const int32_t row = feature_rows[i / columns];
    if (row >= 0) store_pack(grad_features + row * columns + i % columns, load_pack<T, kLanes>(grad_out + i));
  }
};

struct TableGradient {
  float* grad;
  const int32_t *tokens, *sources, *feature_rows, *row_of_token;  // row_of_token null: the table itself
  int64_t rows, columns;
  bool panels;
  DType order;

  __device__ int64_t place(int64_t row, int64_t column) const {
    return panels ? panel_index(row, column, columns, order) : row * columns + column;
  }
  // Adds kLanes neighbours of a row, kRun of which lie side by side.
  template <int kRun, class T, int kLanes>
  __device__ void add(int64_t row, int64_t column, const Pack<T, kLanes>& added) const {
#pragma unroll
    for (int i = 0; i < kLanes; i += kRun) {
      float* const to = grad + place(row, column + i);
      auto sums = load_pack<float, kRun>(to);
#pragma unroll
      for (int j = 0; j < kRun; ++j) sums.values[j] = __fadd_rn(sums.values[j], to_float(added.values[i + j]));
      store_pack(to, sums);
    }
  }
  // The gradient's row of token t, or -1.
  __device__ int32_t row_of(int64_t t) const {
    if (feature_rows != nullptr && feature_rows[t] >= 0) return -1;
    const int32_t token = token_of(tokens, sources, t);
    return row_of_token == nullptr ? token : row_of_token[token];
  }
};

template <class T, int kLanes>
__global__ void __launch_bounds__(kMatchThreads, 1) table_kernel(const TableGradient g, const T* grad_out) {
  const int64_t own = blockIdx.x;
  const int32_t row = g.row_of(own);
  if (row < 0) return;
  bool first = true;
  for_matches(
      0, own, [&](int64_t t) { return g.row_of(t) == row; }, [&](int64_t) { return first = false; });
  if (!first) return;
  __syncthreads();
  for_matches(
      own, g.rows, [&](int64_t t) { return g.row_of(t) == row; },
      [&](int64_t t) {
        for (int64_t k = threadIdx.x * kLanes; k < g.columns; k += kMatchThreads * kLanes) {
          const auto added = load_pack<T, kLanes>(grad_out + t * g.columns + k);
          if (!g.panels) {
            g.template add<kLanes>(row, k, added);
          } else if (kLanes > 1 && g.order == DType::bf16) {
            g.template add<kLanes == 1 ? 1 : 2>(row, k, added);
          } else {
            g.template add<1>(row, k, added);
          }
        }
        return true;
      });
}

}  // namespace

void embedding_forward(Launch& launch, const Embedding& p) {
  if (!launch.expect(p.out.dtype == p.table.dtype && (!p.features || p.features.dtype == p.out.dtype),
                     "Expected `embedding` on CUDA to get table, features and out of one dtype."))
    return;
  with_element(p.out.dtype, [&](auto type) {
    using T = decltype(type);
    with_lanes<T>(p.out.cols(), {p.out.data, p.table.data, p.features.data}, [&](auto lanes) {
      const Forward<T, lanes()> body{static_cast<T*>(p.out.data),
                                     static_cast<const T*>(p.table.data),
                                     static_cast<const T*>(p.features.data),
                                     p.tokens,
                                     p.sources,
                                     p.feature_rows,
                                     p.out.cols(),
                                     p.table.layout == Layout::panels};
      for_elements<lanes()>(launch, body, p.out.shape.count());
    });
  });
}

void embedding_backward(Launch& launch, const Embedding& p) {
  with_element(p.out.dtype, [&](auto type) {
    using T = decltype(type);
    const int64_t rows = p.out.rows(), columns = p.out.cols();
    const T* const grad_out = static_cast<const T*>(p.grad_out.data);
    if (p.grad_features) {
      launch.zero(p.grad_features.data, static_cast<size_t>(p.grad_features.shape.count()) * sizeof(T));
      if (p.feature_rows != nullptr)
        with_lanes<T>(columns, {p.grad_features.data, grad_out}, [&](auto lanes) {
          const CopyFeatures<T, lanes()> body{static_cast<T*>(p.grad_features.data), grad_out, p.feature_rows, columns};
          for_elements<lanes()>(launch, body, rows * columns);
        });
    }
    const auto add = [&](const TableGradient& gradient) {
      with_lanes<T>(columns, {grad_out, gradient.grad}, [&](auto lanes) {
        launch.run(table_kernel<T, lanes()>, blocks(rows), kMatchThreads, 0, gradient, grad_out);
      });
    };
    TableGradient gradient{p.grad_table.f32(),
                           p.tokens,
                           p.sources,
                           p.feature_rows,
                           nullptr,
                           rows,
                           columns,
                           p.table.layout == Layout::panels,
                           p.table.dtype};
    if (p.grad_table) add(gradient);
    gradient.grad = p.grad_token_rows.f32();
    gradient.row_of_token = p.row_of_token;
    gradient.panels = false;
    if (p.grad_token_rows) add(gradient);
  });
}

}  // namespace gavel::cuda
