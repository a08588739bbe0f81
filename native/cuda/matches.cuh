// Adding up rows that an index list names, in the list's order and without atomics: whoever owns a row walks the list
// and takes what matches. A block reads blockDim.x entries at a time and visits the matching ones one by one.
#pragma once
#include "cuda/launch.cuh"

namespace gavel::cuda {

inline constexpr int kMatchThreads = 256;

// body(index) by all threads for every index in [begin, end) with match(index), ascending; stops when body is false.
template <class Match, class Body>
__device__ inline void for_matches(int64_t begin, int64_t end, const Match& match, const Body& body) {
  __shared__ unsigned found[kMatchThreads / 32];
  for (int64_t base = begin; base < end; base += kMatchThreads) {
    const int64_t own = base + threadIdx.x;
    const unsigned votes = __ballot_sync(kAllLanes, own < end && match(own));
    if (threadIdx.x % 32 == 0) found[threadIdx.x / 32] = votes;
    __syncthreads();
    for (int warp = 0; warp < kMatchThreads / 32; ++warp) {
      for (unsigned left = found[warp]; left != 0; left &= left - 1) {
        const int lane = static_cast<int>(__popc((left & (0u - left)) - 1));
        if (!body(base + warp * 32 + lane)) return;
      }
    }
    __syncthreads();
  }
}

}  // namespace gavel::cuda
