// What a matrix product reads, each seen as [extent, depth]: `extent` are the product's rows or columns, `depth` is
// what it sums over. An operand knows how 32 of its depth lie in shared memory and how a tensor core fragment is read
// there without bank conflicts. Elements outside are zeros. Weights keep the packed layout of the processor's kernels:
// a step of 32 columns by a pair of the depth is what a fragment wants, in either direction.
#pragma once
#include "cuda/ptx.cuh"

namespace gavel::cuda {

inline constexpr int kDepth = 32;               // of one stage, in elements of bf16
inline constexpr int kStageBytes = 2 * kDepth;  // per row or column of a tile

// Element (i, c) at data[row(i) * stride + c], row(i) = rows[i] where rows are given.
template <class T>
struct RowMajor {
  static constexpr bool kDepthFast = true;
  const T* data;
  int64_t stride, extent, depth;
  const int32_t* rows = nullptr;
  bool by_chunks = false;  // every row begins at 16 bytes and has a multiple of them

  RowMajor(const void* memory, int64_t rows_, int64_t columns, const int32_t* gathered = nullptr)
      : data(static_cast<const T*>(memory)),
        stride(columns),
        extent(rows_),
        depth(columns),
        rows(gathered),
        by_chunks(aligned(memory) && columns % 8 == 0) {}

  __device__ const T* row(int64_t i) const { return data + (rows == nullptr ? i : rows[i]) * stride; }
  __device__ T at(int64_t i, int64_t c) const { return i < extent && c < depth ? row(i)[c] : T{}; }

  // [kExtent][32], 16-byte chunks of two rows rotated within a line of shared memory.
  static __device__ int place(int i, int chunk) { return i * kDepth + ((chunk ^ (i >> 1 & 3)) << 3); }

  template <int kExtent, int kThreads>
  __device__ void stage(bf16_t* shared, int64_t i0, int64_t c0) const {
    for (int index = static_cast<int>(threadIdx.x); index < kExtent * 4; index += kThreads) {
      const int i = index >> 2, chunk = index & 3;
      bf16_t* const to = shared + place(i, chunk);
      const int64_t c = c0 + chunk * 8;
      if (by_chunks) {
        const bool valid = i0 + i < extent && c < depth;
        copy_async(to, valid ? row(i0 + i) + c : data, valid);
      } else {
        for (int j = 0; j < 8; ++j) to[j] = at(i0 + i, c + j);
      }
    }
  }
  // Rows i .. i + 15 and depth 16 half .. +15 as the left operand of mma.
  template <int kExtent>
  static __device__ void left(uint32_t (&a)[4], const bf16_t* shared, int i, int half) {
    const int lane = static_cast<int>(threadIdx.x) & 31, matrix = lane >> 3;
    ldmatrix_x4<false>(a, shared + place(i + (matrix & 1) * 8 + (lane & 7), half * 2 + (matrix >> 1)));
  }
};

// Element (i, c) at data[row(c) * stride + i]: the transpose of a matrix in rows.
template <class T>
struct ColumnMajor {
  static constexpr bool kDepthFast = false, kQuads = false;
  const T* data;
  int64_t stride, extent, depth;
  const int32_t* rows = nullptr;
  bool by_chunks = false;

  ColumnMajor(const void* memory, int64_t rows_, int64_t columns, const int32_t* gathered = nullptr)
      : data(static_cast<const T*>(memory)),
        stride(columns),
        extent(columns),
        depth(rows_),
        rows(gathered),
        by_chunks(aligned(memory) && columns % 8 == 0) {}

  __device__ const T* row(int64_t c) const { return data + (rows == nullptr ? c : rows[c]) * stride; }
  __device__ T at(int64_t i, int64_t c) const { return i < extent && c < depth ? row(c)[i] : T{}; }

  // [32][kExtent], the chunks of eight rows rotated.
  template <int kExtent>
  static __device__ int place(int c, int chunk) {
    return c * kExtent + ((chunk ^ (c & 7)) << 3);
  }

  template <int kExtent, int kThreads>
  __device__ void stage(bf16_t* shared, int64_t i0, int64_t c0) const {
    constexpr int kChunks = kExtent / 8;
    for (int index = static_cast<int>(threadIdx.x); index < kDepth * kChunks; index += kThreads) {
      const int c = index / kChunks, chunk = index % kChunks;
      bf16_t* const to = shared + place<kExtent>(c, chunk);
      const int64_t i = i0 + chunk * 8;
      if (by_chunks) {
        const bool valid = i < extent && c0 + c < depth;
        copy_async(to, valid ? row(c0 + c) + i : data, valid);
      } else {
        for (int j = 0; j < 8; ++j) to[j] = at(i + j, c0 + c);
      }
    }
  }
  template <int kExtent>
  static __device__ void left(uint32_t (&a)[4], const bf16_t* shared, int i, int half) {
    const int lane = static_cast<int>(threadIdx.x) & 31, matrix = lane >> 3;
    ldmatrix_x4<true>(a, shared + place<kExtent>(half * 16 + (matrix >> 1) * 8 + (lane & 7), i / 8 + (matrix & 1)));
  }
  // Columns i .. i + 15 as two right operands of mma.
  template <int kExtent>
  static __device__ void right(uint32_t (&b)[2][2], const bf16_t* shared, int i, int half) {
    const int lane = static_cast<int>(threadIdx.x) & 31, matrix = lane >> 3;
    uint32_t words[4];
    ldmatrix_x4<true>(words, shared + place<kExtent>(half * 16 + (matrix & 1) * 8 + (lane & 7), i / 8 + (matrix >> 1)));
    b[0][0] = words[0];
    b[0][1] = words[1];
    b[1][0] = words[2];
    b[1][1] = words[3];
  }
};

// A packed weight W[N, K] whose extent is N: x W^T.
template <class T>
struct Panels {
  static constexpr bool kDepthFast = false, kQuads = false;
  const T* data;
  int64_t extent, depth, padded;  // N, K, K to even

  explicit Panels(const Tensor& weight, int64_t first_row = 0)
      : data(static_cast<const T*>(weight.data) + first_row * round_up(weight.cols(), 2)),
        extent(weight.rows() - first_row),
        depth(weight.cols()),
        padded(round_up(weight.cols(), 2)) {}

  __device__ T at(int64_t n, int64_t k) const {
    constexpr DType kOrder = sizeof(T) == 2 ? DType::bf16 : DType::f32;
    return n < extent && k < depth ? data[panel_index(n, k, depth, kOrder)] : T{};
  }

  // Words of a pair of the depth: [16][kExtent], rotated by 8 from step to step.
  template <int kExtent, int kThreads>
  __device__ void stage(bf16_t* shared, int64_t n0, int64_t k0) const {
    constexpr int kPanels = kExtent / 32;
    for (int index = static_cast<int>(threadIdx.x); index < kExtent * 4; index += kThreads) {
      const int chunk = index & 7, step = index >> 3 & 15, panel = index >> 7;
      static_assert(kPanels * 128 == kExtent * 4);
      const int64_t n = n0 + panel * 32, k = k0 + step * 2;
      const bool valid = n < extent && k < padded;
      const T* const from = valid ? data + n * padded + k * 32 + chunk * 8 : data;
      copy_async(shared + 2 * (step * kExtent + ((panel * 32 + chunk * 4) ^ ((step & 3) << 3))), from, valid);
    }
  }
  template <int kExtent>
  static __device__ void right(uint32_t (&b)[2][2], const bf16_t* shared, int n, int half) {
    const int lane = static_cast<int>(threadIdx.x) & 31, group = lane >> 2, pair = lane & 3;
    const uint32_t* const words = reinterpret_cast<const uint32_t*>(shared) + (half * 8 + pair) * kExtent;
    for (int i = 0; i < 2; ++i) {
      const int column = (n + i * 8 + group) ^ (pair << 3);
      b[i][0] = words[column];
      b[i][1] = words[4 * kExtent + column];
    }
  }
};

// The same weight with extent K: dy W. A word holds columns 2 s and 2 s + 1 for one n; two words of neighbouring n are
// taken apart into the right operands of the even and of the odd columns.
template <class T>
struct PanelsTransposed {
  static constexpr bool kDepthFast = true, kQuads = true;
  const T* data;
  int64_t extent, depth, padded;  // K, N, K to even

  explicit PanelsTransposed(const Tensor& weight, int64_t first_row = 0, int64_t rows = -1)
      : data(static_cast<const T*>(weight.data) + first_row * round_up(weight.cols(), 2)),
        extent(weight.cols()),
        depth(rows < 0 ? weight.rows() - first_row : rows),
        padded(round_up(weight.cols(), 2)) {}

  __device__ T at(int64_t k, int64_t n) const {
    constexpr DType kOrder = sizeof(T) == 2 ? DType::bf16 : DType::f32;
    return n < depth && k < extent ? data[panel_index(n, k, extent, kOrder)] : T{};
  }

  // One panel: [kExtent / 2 steps][32], rotated by 8 from step to step.
  template <int kExtent, int kThreads>
  __device__ void stage(bf16_t* shared, int64_t k0, int64_t n0) const {
    for (int index = static_cast<int>(threadIdx.x); index < kExtent * 4; index += kThreads) {
      const int chunk = index & 7, step = index >> 3;
      const int64_t k = k0 + step * 2;
      const bool valid = k < padded && n0 < depth;
      const T* const from = valid ? data + n0 * padded + k * 32 + chunk * 8 : data;
      copy_async(shared + 2 * (step * 32 + ((chunk * 4) ^ ((step & 3) << 3))), from, valid);
    }
  }
  template <int kExtent>
  static __device__ void right(uint32_t (&b)[2][2], const bf16_t* shared, int k, int half) {
    const int lane = static_cast<int>(threadIdx.x) & 31, group = lane >> 2, pair = lane & 3;
    const uint32_t* const words = reinterpret_cast<const uint32_t*>(shared) + (k / 2 + group) * 32;
    for (int i = 0; i < 2; ++i) {
      const int n = (half * 16 + i * 8 + pair * 2) ^ ((group & 3) << 3);
      const uint2 two = *reinterpret_cast<const uint2*>(words + n);
      b[0][i] = __byte_perm(two.x, two.y, 0x5410);
      b[1][i] = __byte_perm(two.x, two.y, 0x7632);
    }
  }
};

}  // namespace gavel::cuda
