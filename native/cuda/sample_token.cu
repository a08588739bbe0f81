// One block a row. The kept tokens are a prefix of the order (logit descending, id ascending), so filters look for one
// bound: a radix selection over the bits of the logits, four passes of 256 bins, by count for top-k and by mass for
// top-p. Masses are whole numbers of 2^-40 of the largest token's, so that every sum is exact and has no order.
#include "core/philox.h"
#include "cuda/device_math.cuh"
#include "cuda/kernels.h"
#include "cuda/launch.cuh"

namespace gavel::cuda {
namespace {

constexpr int kThreads = 512, kWarps = kThreads / 32;
constexpr float kUnit = 0x1p40f;
using Sum = unsigned long long;

struct Row {
  const float* logits;
  int32_t vocabulary;
  const int32_t* banned;
  int32_t num_banned;

  // -inf for a banned token.
  __device__ float logit(int32_t token) const {
    int32_t low = 0, high = num_banned;
    while (low < high) {
      const int32_t middle = (low + high) / 2;
      if (banned[middle] < token) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low < num_banned && banned[low] == token ? -infinity() : logits[token];
  }
};

// Bits that order as logits do; -0 and 0 are one.
__device__ uint32_t key_of(float logit) {
  const uint32_t bits = __float_as_uint(__fadd_rn(logit, 0.0f));
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ Sum mass_of(float logit, float largest) {
  return __float2ull_rn(__fmul_rn(exp_one(__fsub_rn(logit, largest)), kUnit));
}

struct Shared {
  float floats[kWarps];
  Sum sums[kWarps];
  Sum bins[256];
  uint32_t prefix;
  Sum above;
  int32_t token;
};

__device__ float block_max(float value, Shared& shared) {
  value = warp_max(value);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared.floats[threadIdx.x / 32] = value;
  __syncthreads();
  for (int warp = 0; warp < kWarps; ++warp) value = fmaxf(value, shared.floats[warp]);
  return value;
}

__device__ Sum block_total(Sum value, Shared& shared) {
  for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_xor_sync(kAllLanes, value, offset);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared.sums[threadIdx.x / 32] = value;
  __syncthreads();
  Sum total = 0;
  for (int warp = 0; warp < kWarps; ++warp) total += shared.sums[warp];
  return total;
}

// The first token, in ascending ids, at which the running sum of weight(token) passes `target`; the last of any weight
// where none does, -1 where all are zero. Threads take chunks side by side.
template <class Weight>
__device__ int32_t first_beyond(int32_t count, Sum target, const Weight& weight, Shared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  Sum running = 0;
  int32_t last = -1;
  for (int32_t base = 0; base < count; base += kThreads) {
    const int32_t token = base + static_cast<int32_t>(threadIdx.x);
    const Sum own = token < count ? weight(token) : 0;
    Sum sum = own;
    for (unsigned offset = 1; offset < 32; offset <<= 1) {
      const Sum other = __shfl_up_sync(kAllLanes, sum, offset);
      if (lane >= static_cast<int>(offset)) sum += other;
    }
    __syncthreads();
    if (lane == 31) shared.sums[warp] = sum;
    if (threadIdx.x == 0) shared.token = -1;
    __syncthreads();
    Sum before = running;
    for (int i = 0; i < kWarps; ++i) {
      if (i < warp) before += shared.sums[i];
      running += shared.sums[i];
    }
    if (own > 0 && before + sum > target && before + sum - own <= target) shared.token = token;
    __syncthreads();
    if (shared.token >= 0) return shared.token;
    if (own > 0) last = token;
  }
  // Tokens are below 2^24: the largest is exact as a float.
  return static_cast<int32_t>(block_max(static_cast<float>(last), shared));
}

// The largest key at which the running sum of weight(token) over keys from above reaches `needed`, and the sum strictly
// above that key.
struct Bound {
  uint32_t key;
  Sum above;
};
template <class Weight>
__device__ Bound select(const Row& row, uint32_t lowest, Sum needed, const Weight& weight, Shared& shared) {
  if (threadIdx.x == 0) {
    shared.prefix = 0;
    shared.above = 0;
  }
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int bin = static_cast<int>(threadIdx.x); bin < 256; bin += kThreads) shared.bins[bin] = 0;
    __syncthreads();
    const uint32_t prefix = shared.prefix;
    for (int32_t token = static_cast<int32_t>(threadIdx.x); token < row.vocabulary; token += kThreads) {
      const float logit = row.logit(token);
      const uint32_t key = key_of(logit);
      const bool inside = shift == 24 || key >> (shift + 8) == prefix >> (shift + 8);
      if (inside && key >= lowest && logit > -infinity()) atomicAdd(&shared.bins[key >> shift & 255], weight(logit));
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      Sum above = shared.above;
      int bin = 255;
      while (bin > 0 && above + shared.bins[bin] < needed) above += shared.bins[bin--];
      shared.above = above;
      shared.prefix = prefix | static_cast<uint32_t>(bin) << shift;
    }
    __syncthreads();
  }
  return {shared.prefix, shared.above};
}

// What filters leave: keys from `key` on, and of those equal to it the ids up to `last_id`.
struct Kept {
  uint32_t key = 0;
  int32_t last_id = 0x7fffffff;
  float lowest_mass = 0.0f;

  __device__ bool holds(int32_t token, float logit, float largest) const {
    const uint32_t own = key_of(logit);
    return logit > -infinity() && own >= key && (own > key || token <= last_id) &&
           (lowest_mass == 0.0f || exp_one(__fsub_rn(logit, largest)) >= lowest_mass);
  }
};

__device__ Kept filter(const Row& row, const SampleOptions& options, float largest, Shared& shared) {
  Kept kept;
  const auto count = [](float) { return Sum{1}; };
  const auto mass = [&](float logit) { return mass_of(logit, largest); };
  if (options.top_k > 0 && options.top_k < row.vocabulary)
    kept.key = select(row, 0, static_cast<Sum>(options.top_k), count, shared).key;
  if (options.top_p < 1.0f) {
    Sum total = 0;
    for (int32_t token = static_cast<int32_t>(threadIdx.x); token < row.vocabulary; token += kThreads) {
      const float logit = row.logit(token);
      if (kept.holds(token, logit, largest)) total += mass(logit);
    }
    total = block_total(total, shared);
    // A token stays when the mass strictly before it is below the wanted one; the first always does.
    Sum needed = __double2ull_ru(static_cast<double>(options.top_p) * static_cast<double>(total));
    needed = needed < 1 ? 1 : needed > total ? total : needed;
    const Bound bound = select(row, kept.key, needed, mass, shared);
    // Tokens equal to the bound, by ascending id, until the mass before the next is enough.
    kept.last_id = first_beyond(
        row.vocabulary, needed - bound.above - 1,
        [&](int32_t token) {
          const float logit = row.logit(token);
          return logit > -infinity() && key_of(logit) == bound.key ? mass(logit) : Sum{0};
        },
        shared);
    kept.key = bound.key;
  }
  if (options.min_p > 0.0f) kept.lowest_mass = options.min_p < 1.0f ? options.min_p : 1.0f;
  return kept;
}

template <class Parameters>
__global__ void __launch_bounds__(kThreads, 1) sample_kernel(const Parameters p) {
  __shared__ Shared shared;
  const int64_t b = blockIdx.x;
  const Row row{p.logits + b * p.vocabulary, p.vocabulary, p.banned, p.num_banned};
  const SampleOptions options = p.options[b];
  const float normalizer = p.log_normalizer[b];

  // NaN and +inf logits fail the comparison.
  float largest = -infinity(), bad = 0.0f;
  for (int32_t token = static_cast<int32_t>(threadIdx.x); token < row.vocabulary; token += kThreads) {
    const float logit = row.logit(token);
    if (!(logit < infinity())) bad = 1.0f;
    largest = fmaxf(largest, logit);
  }
  largest = block_max(largest, shared);
  bad = block_max(bad, shared);
  const bool usable = bad == 0.0f && largest > -infinity() && __fsub_rn(normalizer, normalizer) == 0.0f;

  int32_t token = -1;
  float log_kept_mass = not_a_number();
  if (usable) {
    const bool filters =
        (options.top_k > 0 && options.top_k < row.vocabulary) || options.top_p < 1.0f || options.min_p > 0.0f;
    const Kept kept = options.greedy ? Kept() : filter(row, options, largest, shared);
    const auto mass = [&](int32_t id) {
      const float logit = row.logit(id);
      return kept.holds(id, logit, largest) ? mass_of(logit, largest) : Sum{0};
    };
    Sum total = 0;
    for (int32_t id = static_cast<int32_t>(threadIdx.x); id < row.vocabulary; id += kThreads) total += mass(id);
    total = block_total(total, shared);
    if (options.greedy) {
      const auto top = [&](int32_t id) { return row.logit(id) == largest ? Sum{1} : Sum{0}; };
      token = first_beyond(row.vocabulary, 0, top, shared);
    } else {
      // uniform * total, rounded down; both are whole numbers of 2^-24 and of the unit.
      const Sum steps = random_bits(options.key)[0] >> 8;
      const Sum target = (total >> 24) * steps + ((total & 0xffffffu) * steps >> 24);
      token = first_beyond(row.vocabulary, target, mass, shared);
    }
    // Exactly 0 when nothing was taken away; rounding must not report more than everything either.
    log_kept_mass = 0.0f;
    if ((filters && !options.greedy) || p.num_banned > 0) {
      const double log_mass = static_cast<double>(largest) + log(static_cast<double>(total) * 0x1p-40) - normalizer;
      log_kept_mass = log_mass < 0.0 ? static_cast<float>(log_mass) : 0.0f;
    }
  }
  if (threadIdx.x != 0) return;
  p.tokens[b] = token;
  p.logprob[b] = token < 0 ? not_a_number() : __fsub_rn(row.logits[token], normalizer);
  p.log_kept_mass[b] = log_kept_mass;
}

}  // namespace

void sample_token_forward(Launch& launch, const SampleToken& p) {
  if (!launch.expect(p.vocabulary < 1 << 24,
                     "Expected a vocabulary of fewer than 2^24 tokens for `sample_token` on CUDA."))
    return;
  launch.run(sample_kernel<SampleToken>, blocks(p.num_rows), kThreads, 0, p);
}

}  // namespace gavel::cuda
