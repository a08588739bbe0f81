#include "cpu/sample_filter.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/dispatch.h"
#include "cpu/head_tile.h"

namespace gavel::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kBins = 1024;
constexpr float kBinsPerNat = 32.0f;

bool before(const Candidate& left, const Candidate& right) {
  return left.logit > right.logit || (left.logit == right.logit && left.id < right.id);
}

int64_t tiles_of(int64_t vocabulary) { return num_pieces(vocabulary, kSampleTile); }

}  // namespace

size_t SampleMemory::size_bytes(int64_t vocabulary) {
  const size_t v = static_cast<size_t>(round_up(vocabulary, 64)),
               t = static_cast<size_t>(round_up(tiles_of(vocabulary), 64));
  return (2 * t + v) * sizeof(float) + 2 * v * sizeof(Candidate);
}

SampleMemory SampleMemory::at(uint8_t* memory, int64_t vocabulary) {
  const int64_t v = round_up(vocabulary, 64), t = round_up(tiles_of(vocabulary), 64);
  SampleMemory result;
  result.tile_max = reinterpret_cast<float*>(memory);
  result.tile_sum = result.tile_max + t;
  result.ordered = result.tile_sum + t;
  result.candidates = reinterpret_cast<Candidate*>(result.ordered + v);
  result.selection = result.candidates + v;
  return result;
}

bool KeptTokens::has_ban(int64_t tile) const {
  const int32_t begin = static_cast<int32_t>(tile * kSampleTile);
  const int32_t* first = std::lower_bound(row_.banned, row_.banned + row_.num_banned, begin);
  return first != row_.banned + row_.num_banned && *first < begin + kSampleTile;
}

// Copies a tile with banned tokens at -inf; returns its length.
int64_t KeptTokens::read_tile(int64_t tile, float* values) const {
  const int64_t begin = tile * kSampleTile, count = std::min(kSampleTile, row_.vocabulary - begin);
  std::copy(row_.logits + begin, row_.logits + begin + count, values);
  const int32_t* end = row_.banned + row_.num_banned;
  for (const int32_t* ban = std::lower_bound(row_.banned, end, static_cast<int32_t>(begin)); ban != end; ++ban) {
    if (*ban >= begin + count) break;
    values[*ban - begin] = -kInfinity;
  }
  return count;
}

bool KeptTokens::open() {
  alignas(64) float values[kSampleTile];
  float largest = -kInfinity;
  for (int64_t tile = 0; tile < tiles(); ++tile) {
    float& max = memory_.tile_max[tile];
    float& sum = memory_.tile_sum[tile];
    if (row_.tile_sums != nullptr && !has_ban(tile)) {
      max = row_.tile_sums[2 * tile];
      sum = row_.tile_sums[2 * tile + 1];
    } else {
      const int64_t count = read_tile(tile, values);
      const TileSums sums = head_tile_sums(isa_, values, count, 1.0f, false);
      max = sums.max;
      sum = sums.sum;
    }
    if (!(max < kInfinity) || !(sum >= 0.0f) || !(sum < kInfinity)) return false;
    largest = std::max(largest, max);
  }
  if (largest == -kInfinity) return false;
  largest_ = largest;
  mass_ = 0;
  for (int64_t tile = 0; tile < tiles(); ++tile) mass_ += tile_mass(tile);
  return true;
}

double KeptTokens::tile_mass(int64_t tile) const {
  return static_cast<double>(memory_.tile_sum[tile]) * exp_one(memory_.tile_max[tile] - largest_);
}

// Candidates become every token with logit >= lowest, ascending.
void KeptTokens::gather(float lowest) {
  alignas(64) float values[kSampleTile];
  lowest = std::max(lowest, std::numeric_limits<float>::lowest());
  count_ = 0;
  for (int64_t tile = 0; tile < tiles(); ++tile) {
    if (!(memory_.tile_max[tile] >= lowest)) continue;
    const int64_t count = read_tile(tile, values), begin = tile * kSampleTile;
    for (int64_t i = 0; i < count; ++i) {
      memory_.candidates[count_] = {values[i], 0.0f, static_cast<int32_t>(begin + i)};
      count_ += values[i] >= lowest ? 1 : 0;
    }
  }
}

void KeptTokens::set_masses() {
  for (int64_t i = 0; i < count_; ++i) memory_.ordered[i] = memory_.candidates[i].logit - largest_;
  exp_row(isa_, memory_.ordered, count_);
  mass_ = 0;
  for (int64_t i = 0; i < count_; ++i) {
    memory_.candidates[i].mass = memory_.ordered[i];
    mass_ += memory_.ordered[i];
  }
}

void KeptTokens::keep_top_k(int32_t top_k) {
  // The k-th largest tile maximum is a lower bound of the k-th largest logit.
  float bound = -kInfinity;
  if (top_k <= tiles()) {
    std::copy(memory_.tile_max, memory_.tile_max + tiles(), memory_.ordered);
    std::nth_element(memory_.ordered, memory_.ordered + top_k - 1, memory_.ordered + tiles(), std::greater<>());
    bound = memory_.ordered[top_k - 1];
  }
  gather(bound);
  if (count_ <= top_k) return;
  for (int64_t i = 0; i < count_; ++i) memory_.ordered[i] = memory_.candidates[i].logit;
  std::nth_element(memory_.ordered, memory_.ordered + top_k - 1, memory_.ordered + count_, std::greater<>());
  const float kth = memory_.ordered[top_k - 1];
  count_ = std::remove_if(memory_.candidates, memory_.candidates + count_,
                          [&](const Candidate& one) { return one.logit < kth; }) -
           memory_.candidates;
}

void KeptTokens::keep_top_p(float top_p, bool gathered, double total) {
  const double needed = static_cast<double>(top_p) * total;
  if (!gathered) {
    // A growing window below the largest logit, until it holds the mass; the last window holds every token.
    for (const float window : {6.0f, 12.0f, 24.0f, kInfinity}) {
      gather(largest_ - window);
      set_masses();
      if (mass_ >= needed) break;
    }
  }
  // A token stays when the mass strictly before it is below `needed`. The last such token lies in the first bin of
  // logits at which the running mass reaches it; halving finds it there.
  const auto bin_of = [&](const Candidate& one) {
    return static_cast<int>(std::min((largest_ - one.logit) * kBinsPerNat, static_cast<float>(kBins - 1)));
  };
  double masses[kBins] = {};
  int last_bin = 0;
  for (int64_t i = 0; i < count_; ++i) {
    const int bin = bin_of(memory_.candidates[i]);
    masses[bin] += memory_.candidates[i].mass;
    last_bin = std::max(last_bin, bin);
  }
  double above = 0;
  int bin = 0;
  for (; bin < last_bin && above + masses[bin] < needed; ++bin) above += masses[bin];
  Candidate* items = memory_.selection;
  int64_t low = 0, high = std::copy_if(memory_.candidates, memory_.candidates + count_, items,
                                       [&](const Candidate& one) { return bin_of(one) == bin; }) -
                          items;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    std::nth_element(items + low, items + middle, items + high, before);
    double left = 0;
    for (int64_t i = low; i < middle; ++i) left += items[i].mass;
    if (above + left >= needed) {
      high = middle;
    } else {
      above += left;
      low = middle;
    }
  }
  const Candidate last = items[low];
  count_ = std::remove_if(memory_.candidates, memory_.candidates + count_,
                          [&](const Candidate& one) { return before(last, one); }) -
           memory_.candidates;
}

void KeptTokens::filter(const SampleOptions& options) {
  const bool top_k = options.top_k > 0 && options.top_k < row_.vocabulary;
  const bool top_p = options.top_p<1.0f, min_p = options.min_p> 0.0f;
  filtered_ = top_k || top_p || min_p;
  if (!filtered_) return;
  double total = mass_;
  if (top_k) {
    keep_top_k(options.top_k);
    set_masses();
    total = mass_;
  }
  if (top_p) keep_top_p(options.top_p, top_k, total);
  if (min_p) {
    if (!top_k && !top_p) {
      // The margin covers the rounding of log; the exact comparison follows.
      gather(largest_ + log_one(std::min(options.min_p, 1.0f)) - 0.01f);
      set_masses();
    }
    const float least = std::min(options.min_p, 1.0f);
    count_ = std::remove_if(memory_.candidates, memory_.candidates + count_,
                            [&](const Candidate& one) { return one.mass < least; }) -
             memory_.candidates;
  }
  mass_ = 0;
  for (int64_t i = 0; i < count_; ++i) mass_ += memory_.candidates[i].mass;
}

bool KeptTokens::keeps(int32_t token) const {
  if (std::binary_search(row_.banned, row_.banned + row_.num_banned, token)) return false;
  if (!filtered_) return row_.logits[token] > -kInfinity;
  const Candidate *begin = memory_.candidates, *end = begin + count_;
  const Candidate* place =
      std::lower_bound(begin, end, token, [](const Candidate& one, int32_t id) { return one.id < id; });
  return place != end && place->id == token;
}

int32_t KeptTokens::draw(float uniform) const {
  const double target = static_cast<double>(uniform) * mass_;
  double running = 0;
  if (filtered_) {
    int32_t last = memory_.candidates[0].id;
    for (int64_t i = 0; i < count_; ++i) {
      if (memory_.candidates[i].mass == 0.0f) continue;
      last = memory_.candidates[i].id;
      running += memory_.candidates[i].mass;
      if (running > target) break;
    }
    return last;
  }
  int64_t chosen = -1;
  double below = 0;
  for (int64_t tile = 0; tile < tiles(); ++tile) {
    const double mass = tile_mass(tile);
    if (mass == 0) continue;
    chosen = tile;
    below = running;
    running += mass;
    if (running > target) break;
  }
  alignas(64) float e[kSampleTile];
  const int64_t count = read_tile(chosen, e);
  for (int64_t i = 0; i < count; ++i) e[i] -= memory_.tile_max[chosen];
  exp_row(isa_, e, count);
  const double inside = (target - below) / exp_one(memory_.tile_max[chosen] - largest_);
  double within = 0;
  int64_t last = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (e[i] == 0.0f) continue;
    last = i;
    within += e[i];
    if (within > inside) break;
  }
  return static_cast<int32_t>(chosen * kSampleTile + last);
}

int32_t KeptTokens::greedy() const {
  alignas(64) float values[kSampleTile];
  for (int64_t tile = 0; tile < tiles(); ++tile) {
    if (memory_.tile_max[tile] != largest_) continue;
    const int64_t count = read_tile(tile, values);
    const float* place = std::find(values, values + count, largest_);
    if (place != values + count) return static_cast<int32_t>(tile * kSampleTile + (place - values));
  }
  return -1;
}

}  // namespace gavel::cpu
