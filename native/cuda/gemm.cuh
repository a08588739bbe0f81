// One tile of a matrix product by one block: every element is one chain over the depth in ascending order (bf16:
// sixteen at a time by mma.sync m16n8k16; fp32: one fma each), whatever the tile's shape and place. So the bits of a
// row depend on neither the number of rows nor the shape chosen for it.
#pragma once
#include "cuda/elements.cuh"
#include "cuda/operands.cuh"

namespace gavel::cuda {

template <int kM_, int kN_, int kWarpsM_, int kWarpsN_>
struct TileShape {
  static constexpr int kM = kM_, kN = kN_, kWarpsM = kWarpsM_, kWarpsN = kWarpsN_;
  static constexpr int kThreads = 32 * kWarpsM * kWarpsN;
};
using LargeTile = TileShape<128, 128, 2, 4>;
using MiddleTile = TileShape<64, 64, 2, 2>;
using LowTile = TileShape<16, 64, 1, 4>;

template <class T, class Shape>
class TileProduct;

template <class Shape>
class TileProduct<bf16_t, Shape> {
 public:
  static constexpr int kStages = 3;
  static constexpr size_t kSharedBytes = kStages * (Shape::kM + Shape::kN) * kStageBytes;

  // body(row, column, values) for this thread's elements, which lie side by side; `values` may be written.
  template <bool kQuads, class Body>
  __device__ void for_each(const Body& body) {
#pragma unroll
    for (int m = 0; m < kFragmentsM; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = row_of_warp() + m * 16 + half * 8 + group();
#pragma unroll
        for (int n = 0; n < kPairsN; ++n) {
          float(&first)[4] = sums_[m][n][0], (&second)[4] = sums_[m][n][1];
          const int column = column_of_warp() + n * 16;
          if constexpr (kQuads) {
            float values[4] = {first[half * 2], second[half * 2], first[half * 2 + 1], second[half * 2 + 1]};
            body(row, column + pair() * 4, values);
            first[half * 2] = values[0];
            second[half * 2] = values[1];
            first[half * 2 + 1] = values[2];
            second[half * 2 + 1] = values[3];
          } else {
            for (int i = 0; i < 2; ++i) {
              float(&from)[4] = sums_[m][n][i];
              float values[2] = {from[half * 2], from[half * 2 + 1]};
              body(row, column + i * 8 + pair() * 2, values);
              from[half * 2] = values[0];
              from[half * 2 + 1] = values[1];
            }
          }
        }
      }
    }
  }

  // The same for what is only read, the neighbouring lanes of a row exchanged so that each has eight elements of it
  // side by side (four where a warp is 16 columns wide): 16 bytes of bf16.
  template <bool kQuads, class Body>
  __device__ void for_each_wide(const Body& body) const {
    constexpr int kStep = kPairsN % 2 == 0 ? 2 : 1;
#pragma unroll
    for (int m = 0; m < kFragmentsM; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = row_of_warp() + m * 16 + half * 8 + group();
#pragma unroll
        for (int n = 0; n < kPairsN; n += kStep) {
          const int column = column_of_warp() + n * 16;
          float values[4 * kStep];
#pragma unroll
          for (int i = 0; i < 2 * kStep; ++i) {
            const float(&from)[4] = sums_[m][n + i / 2][i % 2];
            const int at = i / 2 * 4 + i % 2;
            values[kQuads ? at : 2 * i] = from[half * 2];
            values[kQuads ? at + 2 : 2 * i + 1] = from[half * 2 + 1];
          }
          if constexpr (kQuads) {
            if constexpr (kStep == 2) exchange<4, 1>(values);
            body(row, kStep == 2 ? column + (pair() & 1) * 16 + (pair() >> 1) * 8 : column + pair() * 4, values);
          } else {
            exchange<2, 1>(values);
            if constexpr (kStep == 2) exchange<4, 2>(values);
            body(row, kStep == 2 ? column + pair() * 8 : column + (pair() & 1) * 8 + (pair() >> 1) * 4, values);
          }
        }
      }
    }
  }

  __device__ void zero() {
#pragma unroll
    for (int m = 0; m < kFragmentsM; ++m)
#pragma unroll
      for (int n = 0; n < kPairsN; ++n)
#pragma unroll
        for (int i = 0; i < 8; ++i) sums_[m][n][i / 4][i % 4] = 0.0f;
  }

  // The depth from `begin`, a multiple of 32, to `end`.
  template <class Left, class Right>
  __device__ void run(const Left& left, const Right& right, int64_t row0, int64_t column0, int64_t end,
                      int64_t begin = 0) {
    bf16_t* const shared = reinterpret_cast<bf16_t*>(dynamic_shared());
    const int steps = static_cast<int>(divide_up(end - begin, kDepth));
    const auto load = [&](int step) {
      if (step < steps) {
        bf16_t* const to = shared + step % kStages * kStageElements;
        left.template stage<Shape::kM, Shape::kThreads>(to, row0, begin + int64_t{step} * kDepth);
        right.template stage<Shape::kN, Shape::kThreads>(to + Shape::kM * kDepth, column0,
                                                         begin + int64_t{step} * kDepth);
      }
      copy_commit();
    };
    load(0);
    load(1);
    for (int step = 0; step < steps; ++step) {
      copy_wait<1>();
      __syncthreads();
      load(step + 2);
      const bf16_t* const from = shared + step % kStages * kStageElements;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t a[kFragmentsM][4], b[kPairsN][2][2];
#pragma unroll
        for (int m = 0; m < kFragmentsM; ++m) Left::template left<Shape::kM>(a[m], from, row_of_warp() + m * 16, half);
#pragma unroll
        for (int n = 0; n < kPairsN; ++n)
          Right::template right<Shape::kN>(b[n], from + Shape::kM * kDepth, column_of_warp() + n * 16, half);
#pragma unroll
        for (int m = 0; m < kFragmentsM; ++m)
#pragma unroll
          for (int n = 0; n < kPairsN; ++n) {
            mma_bf16(sums_[m][n][0], a[m], b[n][0]);
            mma_bf16(sums_[m][n][1], a[m], b[n][1]);
          }
      }
    }
    copy_wait<0>();
    __syncthreads();
  }

 private:
  static constexpr int kFragmentsM = Shape::kM / Shape::kWarpsM / 16, kPairsN = Shape::kN / Shape::kWarpsN / 16;
  static constexpr int kStageElements = (Shape::kM + Shape::kN) * kDepth;

  static __device__ int warp() { return static_cast<int>(threadIdx.x) >> 5; }
  static __device__ int group() { return (static_cast<int>(threadIdx.x) & 31) >> 2; }
  static __device__ int pair() { return static_cast<int>(threadIdx.x) & 3; }
  static __device__ int row_of_warp() { return warp() / Shape::kWarpsN * (Shape::kM / Shape::kWarpsM); }
  static __device__ int column_of_warp() { return warp() % Shape::kWarpsN * (Shape::kN / Shape::kWarpsN); }

  // Of every two runs of kRun values, the lanes whose bit kMask of pair() is 0 get both of the first run, the others
  // both of the second, in ascending lanes.
  template <int kRun, int kMask, int kCount>
  static __device__ void exchange(float (&values)[kCount]) {
    const bool second = (pair() & kMask) != 0;
#pragma unroll
    for (int begin = 0; begin < kCount; begin += 2 * kRun) {
#pragma unroll
      for (int i = begin; i < begin + kRun; ++i) {
        const float received = __shfl_xor_sync(kAllLanes, second ? values[i] : values[i + kRun], kMask);
        if (second) {
          values[i] = received;
        } else {
          values[i + kRun] = received;
        }
      }
    }
  }

  float sums_[kFragmentsM][kPairsN][2][4];
};

template <class Shape>
class TileProduct<float, Shape> {
 public:
  static constexpr int kSteps = 16, kRowM = Shape::kM + 4, kRowN = Shape::kN + 4;
  static constexpr size_t kSharedBytes = sizeof(float) * kSteps * (kRowM + kRowN);

  template <bool kQuads, class Body>
  __device__ void for_each(const Body& body) {
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int n = 0; n < kGroups; ++n) body(row(i), n * 64 + first_column(), sums_[i][n]);
  }
  template <bool kQuads, class Body>
  __device__ void for_each_wide(const Body& body) {
    for_each<kQuads>(body);
  }

  __device__ void zero() {
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int n = 0; n < kGroups * 4; ++n) sums_[i][n / 4][n % 4] = 0.0f;
  }

  template <class Left, class Right>
  __device__ void run(const Left& left, const Right& right, int64_t row0, int64_t column0, int64_t end,
                      int64_t begin = 0) {
    float* const a = reinterpret_cast<float*>(dynamic_shared());
    float* const b = a + kSteps * kRowM;
    for (int64_t at = begin; at < end; at += kSteps) {
      fill<Shape::kM, kRowM>(a, left, row0, at);
      fill<Shape::kN, kRowN>(b, right, column0, at);
      __syncthreads();
#pragma unroll 2
      for (int step = 0; step < kSteps; ++step) {
        float y[kGroups][4];
#pragma unroll
        for (int n = 0; n < kGroups; ++n) {
          const float4 four = *reinterpret_cast<const float4*>(b + step * kRowN + n * 64 + first_column());
          y[n][0] = four.x;
          y[n][1] = four.y;
          y[n][2] = four.z;
          y[n][3] = four.w;
        }
#pragma unroll
        for (int i = 0; i < kRows; ++i) {
          const float x = a[step * kRowM + row(i)];
#pragma unroll
          for (int n = 0; n < kGroups * 4; ++n)
            sums_[i][n / 4][n % 4] = __fmaf_rn(x, y[n / 4][n % 4], sums_[i][n / 4][n % 4]);
        }
      }
      __syncthreads();
    }
  }

 private:
  static constexpr int kLines = Shape::kThreads / 16, kRows = Shape::kM / kLines, kGroups = Shape::kN / 64;
  static __device__ int row(int i) { return static_cast<int>(threadIdx.x) / 16 + i * kLines; }
  static __device__ int first_column() { return static_cast<int>(threadIdx.x) % 16 * 4; }

  template <int kExtent, int kRow, class Operand>
  static __device__ void fill(float* to, const Operand& from, int64_t i0, int64_t c0) {
    for (int index = static_cast<int>(threadIdx.x); index < kExtent * kSteps; index += Shape::kThreads) {
      const int i = Operand::kDepthFast ? index / kSteps : index % kExtent;
      const int c = Operand::kDepthFast ? index % kSteps : index / kExtent;
      to[c * kRow + i] = from.at(i0 + i, c0 + c);
    }
  }

  float sums_[kRows][kGroups][4];
};

// Blocks that a multiprocessor must have room for. Without a number the compiler saves registers for more of them and
// spills.
template <class T, bool kResumes>
inline constexpr int kLeastBlocks = sizeof(T) == 2 && !kResumes ? 2 : 1;

// An epilogue has kResumes (the chain goes on from what init() reads), init(row, column, values) and store(row, column,
// values), both with global places that may lie outside the result.
template <class T, class Shape, class Left, class Right, class Epilogue>
__global__ void __launch_bounds__(Shape::kThreads, kLeastBlocks<T, Epilogue::kResumes>)
    gemm_kernel(const Left left, const Right right, int64_t depth, const Epilogue epilogue) {
  const int64_t row0 = int64_t{blockIdx.x} * Shape::kM, column0 = int64_t{blockIdx.y} * Shape::kN;
  TileProduct<T, Shape> product;
  if constexpr (Epilogue::kResumes) {
    product.template for_each<Right::kQuads>(
        [&](int row, int column, auto& values) { epilogue.init(row0 + row, column0 + column, values); });
  } else {
    product.zero();
  }
  product.run(left, right, row0, column0, depth);
  const auto store = [&](int row, int column, auto& values) { epilogue.store(row0 + row, column0 + column, values); };
  if constexpr (Epilogue::kResumes) {
    product.template for_each<Right::kQuads>(store);
  } else {
    product.template for_each_wide<Right::kQuads>(store);
  }
}

template <class T, class Shape, class Left, class Right, class Epilogue>
void gemm(Launch& launch, const Left& left, const Right& right, int64_t depth, const Epilogue& epilogue) {
  launch.run(gemm_kernel<T, Shape, Left, Right, Epilogue>,
             blocks(divide_up(left.extent, Shape::kM), divide_up(right.extent, Shape::kN)), Shape::kThreads,
             TileProduct<T, Shape>::kSharedBytes, left, right, depth, epilogue);
}

// kCount neighbours of a row of which `left` are there. `whole`: always all, at addresses of as many bytes.
template <int kCount, class T>
__device__ inline Pack<T, kCount> load_part_of(const T* from, int64_t left, bool whole) {
  if (whole) return load_pack<T, kCount>(from);
  Pack<T, kCount> pack{};
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    if (i < left) pack.values[i] = from[i];
  return pack;
}
template <int kCount, class T>
__device__ inline void store_part_of(T* to, const Pack<T, kCount>& pack, int64_t left, bool whole) {
  if (whole) return store_pack(to, pack);
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    if (i < left) to[i] = pack.values[i];
}

// For dy^T x: a packed fp32 gradient of a weight [n, k] of dtype T. The chain goes on from what is there. Columns 2 i
// and 2 i + 1 of a bf16 weight lie side by side.
template <class T>
struct AddToPanels {
  static constexpr bool kResumes = true;
  static constexpr int kRun = sizeof(T) == 2 ? 2 : 1;
  float* grad;
  int64_t n, k;

  template <int kCount>
  __device__ void init(int64_t row, int64_t column, float (&values)[kCount]) const {
    for (float& value : values) value = 0.0f;
    for_runs<kCount>(row, column, [&](int i, float* at, int64_t left) {
      const auto run = load_part_of<kRun>(at, left, left >= kRun);
      for (int j = 0; j < kRun; ++j) values[i + j] = run.values[j];
    });
  }
  template <int kCount>
  __device__ void store(int64_t row, int64_t column, const float (&values)[kCount]) const {
    for_runs<kCount>(row, column, [&](int i, float* at, int64_t left) {
      Pack<float, kRun> run;
      for (int j = 0; j < kRun; ++j) run.values[j] = values[i + j];
      store_part_of<kRun>(at, run, left, left >= kRun);
    });
  }
  template <int kCount, class Body>
  __device__ void for_runs(int64_t row, int64_t column, const Body& body) const {
    for (int i = 0; i < kCount; i += kRun)
      if (row < n && column + i < k)
        body(i, grad + panel_index(row, column + i, k, sizeof(T) == 2 ? DType::bf16 : DType::f32), k - column - i);
  }
};

// True when tiles of `Shape` are enough to occupy the device.
template <class Shape>
bool fills(const Launch& launch, int64_t rows, int64_t columns) {
  return divide_up(rows, Shape::kM) * divide_up(columns, Shape::kN) >= launch.processors();
}

}  // namespace gavel::cuda
