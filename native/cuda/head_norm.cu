// head_norm: 2 to 32 lanes take one head of one row, as many as the head's size alone says, each eight neighbours at a
// time; values are copied by the same kernel.
#include "cuda/column_sums.cuh"
#include "cuda/device_math.cuh"
#include "cuda/kernels.h"
#include "cuda/rows.cuh"

namespace gavel::cuda {
namespace {

constexpr int kThreads = 128;

// What both directions share. A row is `heads` that are normed, then values, in pieces of a head's size.
template <class T, class W>
struct Heads {
  const T* x;
  const W *query_weight, *key_weight;
  float* inverse_rms;
  int64_t rows, columns;
  int32_t query_heads, heads, pieces, size, lanes;
  float eps;
};

// The piece of a thread. Threads past the last one go along, since lanes add up together.
template <class T, class W>
struct Piece {
  const Heads<T, W>& h;
  int64_t row;
  int32_t head, lane;
  bool there, normed;

  __device__ explicit Piece(const Heads<T, W>& heads) : h(heads) {
    const int64_t index = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / h.lanes;
    row = index / h.pieces;
    head = static_cast<int32_t>(index % h.pieces);
    lane = static_cast<int32_t>(threadIdx.x) % h.lanes;
    there = row < h.rows;
    normed = there && head < h.heads;
  }
  __device__ int64_t first() const { return row * h.columns + int64_t{head} * h.size; }
  __device__ const W* weight() const { return head < h.query_heads ? h.query_weight : h.key_weight; }
  __device__ float& inverse() const { return h.inverse_rms[row * h.heads + head]; }

  // body(start) for every part of this thread, ascending.
  template <class Body>
  __device__ void for_parts(int64_t size, const Body& body) const {
    for (int32_t start = lane * kRowLanes; start < size; start += h.lanes * kRowLanes) body(start);
  }
  // Over the lanes of the piece, by a tree.
  __device__ float sum(float value) const {
    for (int offset = h.lanes / 2; offset > 0; offset >>= 1)
      value = __fadd_rn(value, __shfl_xor_sync(kAllLanes, value, offset));
    return value;
  }
  template <bool kVector>
  __device__ void copy(T* to, const T* from) const {
    const int64_t left = h.columns - int64_t{head} * h.size, size = left < h.size ? left : h.size;
    for_parts(size, [&](int32_t start) {
      float part[kRowLanes];
      load_part<kVector>(from + first(), start, size, part);
      store_part<kVector>(to + first(), start, size, part);
    });
  }
};

template <class T, class W, bool kVector>
__global__ void __launch_bounds__(kThreads) forward_kernel(T* out, const Heads<T, W> h) {
  const Piece<T, W> piece(h);
  const T* const from = h.x + piece.first();
  float sum = 0.0f;
  if (piece.normed) {
    piece.for_parts(h.size, [&](int32_t start) {
      float part[kRowLanes];
      load_part<kVector>(from, start, h.size, part);
#pragma unroll
      for (int i = 0; i < kRowLanes; ++i) sum = __fmaf_rn(part[i], part[i], sum);
    });
  }
  const float mean = __fdiv_rn(piece.sum(sum), static_cast<float>(h.size));
  if (!piece.there) return;
  if (!piece.normed) return piece.template copy<kVector>(out, h.x);
  const float scale = __frcp_rn(__fsqrt_rn(__fadd_rn(mean, h.eps)));
  if (piece.lane == 0) piece.inverse() = scale;
  piece.for_parts(h.size, [&](int32_t start) {
    float part[kRowLanes], gain[kRowLanes];
    load_part<kVector>(from, start, h.size, part);
    load_part<kVector>(piece.weight(), start, h.size, gain);
#pragma unroll
    for (int i = 0; i < kRowLanes; ++i) part[i] = __fmul_rn(__fmul_rn(part[i], scale), gain[i]);
    store_part<kVector>(out + piece.first(), start, h.size, part);
  });
}

template <class T, class W, bool kVector>
__global__ void __launch_bounds__(kThreads) backward_kernel(T* grad_x, const T* grad_out, const Heads<T, W> h) {
  const Piece<T, W> piece(h);
  const float inverse = piece.normed ? piece.inverse() : 0.0f;
  const auto load = [&](int32_t start, float(&g)[kRowLanes], float(&n)[kRowLanes]) {
    float gain[kRowLanes];
    load_part<kVector>(grad_out + piece.first(), start, h.size, g);
    load_part<kVector>(h.x + piece.first(), start, h.size, n);
    load_part<kVector>(piece.weight(), start, h.size, gain);
#pragma unroll
    for (int i = 0; i < kRowLanes; ++i) {
      g[i] = __fmul_rn(g[i], gain[i]);
      n[i] = __fmul_rn(n[i], inverse);
    }
  };
  float sum = 0.0f;
  if (piece.normed) {
    piece.for_parts(h.size, [&](int32_t start) {
      float g[kRowLanes], n[kRowLanes];
      load(start, g, n);
#pragma unroll
      for (int i = 0; i < kRowLanes; ++i) sum = __fmaf_rn(g[i], n[i], sum);
    });
  }
  const float mean = __fdiv_rn(piece.sum(sum), static_cast<float>(h.size));
  if (!piece.there) return;
  if (!piece.normed) return piece.template copy<kVector>(grad_x, grad_out);
  piece.for_parts(h.size, [&](int32_t start) {
    float g[kRowLanes], n[kRowLanes];
    load(start, g, n);
#pragma unroll
    for (int i = 0; i < kRowLanes; ++i) g[i] = __fmul_rn(inverse, __fmaf_rn(-n[i], mean, g[i]));
    store_part<kVector>(grad_x + piece.first(), start, h.size, g);
  });
}

// Rows are pairs of a row and one of `count` heads from `head` on.
template <class T>
struct WeightGradient {
  const T *grad_out, *x;
  const float* inverse_rms;
  int64_t columns;
  int32_t heads, head, count, size;
  template <int kLanes>
  __device__ void add(int64_t pair, int64_t column, float (&sums)[kLanes]) const {
    const int64_t row = pair / count, own = head + pair % count, at = row * columns + own * size + column;
    const auto grads = load_pack<T, kLanes>(grad_out + at), values = load_pack<T, kLanes>(x + at);
    const float inverse = inverse_rms[row * heads + own];
#pragma unroll
    for (int i = 0; i < kLanes; ++i)
      sums[i] =
          __fadd_rn(sums[i], __fmul_rn(to_float(grads.values[i]), __fmul_rn(to_float(values.values[i]), inverse)));
  }
};

template <class T, class W>
Heads<T, W> heads_of(const HeadNorm& p) {
  int32_t lanes = 2;
  while (lanes < 32 && lanes * kRowLanes < p.head_dim) lanes *= 2;
  return {static_cast<const T*>(p.x.data),
          static_cast<const W*>(p.query_weight.data),
          static_cast<const W*>(p.key_weight.data),
          p.inverse_rms.f32(),
          p.x.rows(),
          p.x.cols(),
          p.query_heads,
          p.query_heads + p.key_heads,
          static_cast<int32_t>(divide_up(p.x.cols(), p.head_dim)),
          p.head_dim,
          lanes,
          p.eps};
}

// body(T{}, W{}, vector), as with_rows.
template <class Body>
void with_types(const HeadNorm& p, std::initializer_list<const void*> pointers, const Body& body) {
  const bool whole = p.x.cols() % kRowLanes == 0 && aligned(p.query_weight.data) && aligned(p.key_weight.data);
  with_rows(p.x, p.query_weight, whole && whole_vectors(p.head_dim, pointers), body);
}

template <class T, class W>
dim3 grid_of(const Heads<T, W>& h) {
  return blocks(divide_up(h.rows * h.pieces * h.lanes, kThreads));
}

}  // namespace

void head_norm_forward(Launch& launch, const HeadNorm& p) {
  with_types(p, {p.out.data, p.x.data}, [&](auto type, auto weight_type, auto whole) {
    using T = decltype(type);
    using W = decltype(weight_type);
    const auto heads = heads_of<T, W>(p);
    launch.run(forward_kernel<T, W, whole()>, grid_of(heads), kThreads, 0, static_cast<T*>(p.out.data), heads);
  });
}

void head_norm_backward(Launch& launch, const HeadNorm& p) {
  with_types(p, {p.grad_x.data, p.grad_out.data, p.x.data}, [&](auto type, auto weight_type, auto whole) {
    using T = decltype(type);
    using W = decltype(weight_type);
    const auto heads = heads_of<T, W>(p);
    if (p.grad_x)
      launch.run(backward_kernel<T, W, whole()>, grid_of(heads), kThreads, 0, static_cast<T*>(p.grad_x.data),
                 static_cast<const T*>(p.grad_out.data), heads);
  });
  with_element(p.x.dtype, [&](auto type) {
    using T = decltype(type);
    const T *grad_out = static_cast<const T*>(p.grad_out.data), *x = static_cast<const T*>(p.x.data);
    WeightGradient<T> value{grad_out,      x,         p.inverse_rms.f32(), p.x.cols(), p.query_heads + p.key_heads, 0,
                            p.query_heads, p.head_dim};
    const bool whole = whole_packs<T>(p.x.cols(), {grad_out, x}) && whole_packs<T>(p.head_dim, {});
    if (p.grad_query_weight)
      add_column_sums<T>(launch, value, p.grad_query_weight.f32(), p.x.rows() * p.query_heads, p.head_dim, whole);
    value.head = p.query_heads;
    value.count = p.key_heads;
    if (p.grad_key_weight)
      add_column_sums<T>(launch, value, p.grad_key_weight.f32(), p.x.rows() * p.key_heads, p.head_dim, whole);
  });
}

}  // namespace gavel::cuda
