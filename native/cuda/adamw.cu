// AdamW, one warp for each 256 elements that share the scales of an 8-bit moment and the draws of stochastic rounding;
// a lane takes elements i .. i + 3 and i + 128 .. i + 131, which share four Philox calls: a warp's loads of a tensor
// are whole lines, 16 bytes a lane in fp32. The order of operations is the processor's.
#include <cmath>

#include "core/philox.h"
#include "cuda/device_math.cuh"
#include "cuda/elements.cuh"
#include "cuda/kernels.h"

namespace gavel::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32, kQuad = 4;
static_assert(32 * kQuad == kDrawsPerBlock);
// Blocks a multiprocessor, where a block first copies the maps of 8-bit moments.
constexpr int kBlocksWithMaps = 16;

// Codes of 8-bit moments ascend in magnitude from code 0 to kTop; then comes 1.
template <bool kSigned>
struct DynamicMap {
  static constexpr int kTop = kSigned ? 127 : 254;
  std::array<float, 256> values;

  // The last code of a value not above `magnitude`, but for one more or less.
  static __device__ int about(float magnitude) {
    constexpr float kSlopes[] = {slope(0), slope(1), slope(2), slope(3), slope(4), slope(5), slope(6)};
    constexpr float kEdges[] = {1e-7f, 1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f};
    static_assert(sizeof(kEdges) == sizeof(float) * kDynamicDecades && sizeof(kSlopes) == sizeof(kEdges));
    float of_decade = kSlopes[0];
    int steps = kSigned ? 1 : 2;
#pragma unroll
    for (int next = 1; next < kDynamicDecades; ++next) {
      const bool above = magnitude >= kEdges[next];
      of_decade = above ? kSlopes[next] : of_decade;
      steps += above ? steps : 0;
    }
    const float place = __fsub_rn(__fmul_rn(magnitude, of_decade), __fmul_rn(static_cast<float>(steps), 1.0f / 9));
    const int code = steps - (kSigned ? 1 : 2) + static_cast<int>(__fadd_rn(place, 0.5f));
    return code < kTop ? code : kTop;
  }
  static constexpr float slope(int decade) {
    double scale = 0.9e-6;
    for (int i = 0; i < decade; ++i) scale *= 10;
    return static_cast<float>(((kSigned ? 1 : 2) << decade) / scale);
  }

  __device__ uint8_t nearest(float value, float inverse_scale) const {
    const float scaled = __fmul_rn(value, inverse_scale), magnitude = fabsf(scaled);
    int low = magnitude > 0.0f ? about(magnitude) : 0;
    if (values[low] > magnitude) {
      --low;
    } else if (low < kTop && values[low + 1] <= magnitude) {
      ++low;
    }
    const int high = low + 1;  // values[low] <= magnitude < values[high]
    const bool negative = kSigned && scaled < 0.0f;
    const bool up = __fsub_rn(magnitude, values[low]) > __fsub_rn(values[high], magnitude);
    // The signed map has no -1.
    int code = up && !(negative && high > kTop) ? high : low;
    if (negative && code > 0) code += 128;
    // A positive second moment never becomes zero: a step would then divide by eps alone.
    if (!kSigned && code == 0 && value > 0.0f) code = 1;
    return static_cast<uint8_t>(code);
  }
};

struct Maps {
  DynamicMap<true> first;
  DynamicMap<false> second;
};
__device__ const Maps kMaps = {{kSignedMap}, {kUnsignedMap}};

// Adds 16 random bits below the kept ones and cuts: up or down, each as likely as the value is near.
__device__ bf16_t round_stochastically(float value, uint32_t bits) {
  return static_cast<bf16_t>((__float_as_uint(value) + (bits & 0xffffu)) >> 16);
}

// M is float, bf16_t or uint8_t; V what the parameter's value is stored in.
template <class M, class V, bool kMaster>
struct Update {
  V* value;
  float* master;
  const float* grad;
  M *moment1, *moment2;
  float *scales1, *scales2;
  int64_t count;
  AdamWScalars s;
  uint64_t seed, parameter;
  uint32_t step;
  bool aligned;  // every pointer
};

// Eight elements of a lane, two quads 128 apart. kWhole: none lies past the end, and quads are aligned.
template <bool kWhole, class T>
__device__ void load(const T* from, int64_t first, int64_t count, T (&to)[2 * kQuad]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t i = first + half * kDrawsPerBlock;
    if constexpr (kWhole) {
      const auto pack = load_pack<T, kQuad>(from + i);
#pragma unroll
      for (int j = 0; j < kQuad; ++j) to[half * kQuad + j] = pack.values[j];
    } else {
#pragma unroll
      for (int j = 0; j < kQuad; ++j) to[half * kQuad + j] = i + j < count ? from[i + j] : T{};
    }
  }
}
template <bool kWhole, class T>
__device__ void store(T* to, int64_t first, int64_t count, const T (&from)[2 * kQuad]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t i = first + half * kDrawsPerBlock;
    if constexpr (kWhole) {
      Pack<T, kQuad> pack;
#pragma unroll
      for (int j = 0; j < kQuad; ++j) pack.values[j] = from[half * kQuad + j];
      store_pack(to + i, pack);
    } else {
#pragma unroll
      for (int j = 0; j < kQuad; ++j)
        if (i + j < count) to[i + j] = from[half * kQuad + j];
    }
  }
}

// One state block by one warp.
template <bool kWhole, class M, class V, bool kMaster>
__device__ void update_block(const Update<M, V, kMaster>& u, const Maps* maps, int64_t block) {
  constexpr bool kCodes = sizeof(M) == 1, kStochasticMoments = sizeof(M) == 2;
  constexpr bool kStochasticValue = sizeof(V) == 2 && !kMaster;
  constexpr int kEach = 2 * kQuad;
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const int64_t first = block * kStateBlock + lane * kQuad;
  float g[kEach], w[kEach];
  M m0[kEach], v0[kEach];
  V value[kEach];
  load<kWhole>(u.grad, first, u.count, g);
  load<kWhole>(static_cast<const M*>(u.moment1), first, u.count, m0);
  load<kWhole>(static_cast<const M*>(u.moment2), first, u.count, v0);
  if constexpr (kMaster) {
    load<kWhole>(static_cast<const float*>(u.master), first, u.count, w);
  } else {
    load<kWhole>(static_cast<const V*>(u.value), first, u.count, value);
#pragma unroll
    for (int i = 0; i < kEach; ++i) w[i] = to_float(value[i]);
  }
  float m[kEach], v[kEach];
  if constexpr (kCodes) {
    const float scale1 = u.scales1[block], scale2 = u.scales2[block];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      m[i] = __fmul_rn(maps->first.values[m0[i]], scale1);
      v[i] = __fmul_rn(maps->second.values[v0[i]], scale2);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      m[i] = to_float(m0[i]);
      v[i] = to_float(v0[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const float grad = __fmul_rn(g[i], u.s.grad_scale);
    m[i] = __fadd_rn(m[i], __fmul_rn(__fsub_rn(grad, m[i]), u.s.weight1));
    v[i] = __fadd_rn(__fmul_rn(v[i], u.s.beta2), __fmul_rn(__fmul_rn(grad, grad), u.s.weight2));
    const float root = __fadd_rn(__fmul_rn(__fsqrt_rn(v[i]), u.s.inverse_root2), u.s.eps);
    w[i] = __fsub_rn(__fmul_rn(w[i], u.s.keep), __fmul_rn(__fdiv_rn(m[i], root), u.s.step_size));
  }
  if constexpr (kMaster) store<kWhole>(u.master, first, u.count, w);
  if constexpr (kStochasticMoments || kStochasticValue) {
#pragma unroll
    for (int j = 0; j < kQuad; ++j) {
      const auto words =
          random_bits({u.seed, u.parameter, u.step, static_cast<uint32_t>(block * kDrawsPerBlock + lane * kQuad + j)});
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int i = half * kQuad + j;
        const size_t word = static_cast<size_t>(2 * half);
        if constexpr (kStochasticMoments) {
          m0[i] = round_stochastically(m[i], words[word]);
          v0[i] = round_stochastically(v[i], words[word] >> 16);
        }
        if constexpr (kStochasticValue) value[i] = round_stochastically(w[i], words[word + 1]);
      }
    }
  }
  if constexpr (!kStochasticValue) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) value[i] = from_float<V>(w[i]);
  }
  if constexpr (kCodes) {
    // Elements past the end have no gradient and no moments: they are zeros here.
    float most1 = 0.0f, most2 = 0.0f;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      most1 = fmaxf(most1, fabsf(m[i]));
      most2 = fmaxf(most2, v[i]);
    }
    most1 = warp_max(most1);
    most2 = warp_max(most2);
    const float inverse1 = most1 > 0.0f ? __frcp_rn(most1) : 0.0f, inverse2 = most2 > 0.0f ? __frcp_rn(most2) : 0.0f;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      m0[i] = maps->first.nearest(m[i], inverse1);
      v0[i] = maps->second.nearest(v[i], inverse2);
    }
    if (lane == 0) {
      u.scales1[block] = most1;
      u.scales2[block] = most2;
    }
  } else if constexpr (!kStochasticMoments) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      m0[i] = m[i];
      v0[i] = v[i];
    }
  }
  store<kWhole>(u.value, first, u.count, value);
  store<kWhole>(u.moment1, first, u.count, m0);
  store<kWhole>(u.moment2, first, u.count, v0);
}

template <class M, class V, bool kMaster>
__global__ void __launch_bounds__(kThreads) adamw_kernel(const Update<M, V, kMaster> u) {
  const Maps* own = nullptr;
  if constexpr (sizeof(M) == 1) {
    __shared__ float copied[sizeof(Maps) / sizeof(float)];
    for (size_t i = threadIdx.x; i < sizeof(Maps) / sizeof(float); i += kThreads)
      copied[i] = reinterpret_cast<const float*>(&kMaps)[i];
    __syncthreads();
    own = reinterpret_cast<const Maps*>(copied);
  }
  const int64_t warps = int64_t{gridDim.x} * kWarps, blocks = state_blocks(u.count);
  for (int64_t block = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; block < blocks; block += warps) {
    if (u.aligned && (block + 1) * kStateBlock <= u.count) {
      update_block<true>(u, own, block);
    } else {
      update_block<false>(u, own, block);
    }
  }
}

template <class M, class V, bool kMaster>
void run(Launch& launch, const AdamW& p) {
  bool whole = true;
  for (const void* pointer :
       std::initializer_list<const void*>{p.value.data, p.master.data, p.grad, p.moment1.data, p.moment2.data})
    whole = whole && aligned(pointer);
  const Update<M, V, kMaster> update{static_cast<V*>(p.value.data),
                                     p.master.f32(),
                                     p.grad,
                                     static_cast<M*>(p.moment1.data),
                                     static_cast<M*>(p.moment2.data),
                                     p.scales1,
                                     p.scales2,
                                     p.count,
                                     AdamWScalars(p),
                                     p.seed,
                                     p.parameter,
                                     static_cast<uint32_t>(p.step),
                                     whole};
  const int64_t wanted = divide_up(state_blocks(p.count), kWarps),
                most = int64_t{launch.processors()} * kBlocksWithMaps;
  launch.run(adamw_kernel<M, V, kMaster>, blocks(sizeof(M) == 1 && wanted > most ? most : wanted), kThreads, 0, update);
}

template <class M>
void run_with_value(Launch& launch, const AdamW& p) {
  if (p.value.dtype == DType::bf16 && p.master) return run<M, bf16_t, true>(launch, p);
  if (p.value.dtype == DType::bf16) return run<M, bf16_t, false>(launch, p);
  if (p.master) return run<M, float, true>(launch, p);
  run<M, float, false>(launch, p);
}

}  // namespace

void adamw_forward(Launch& launch, const AdamW& p) {
  if (p.moment1.dtype == DType::u8) return run_with_value<uint8_t>(launch, p);
  if (p.moment1.dtype == DType::bf16) return run_with_value<bf16_t>(launch, p);
  run_with_value<float>(launch, p);
}

}  // namespace gavel::cuda
