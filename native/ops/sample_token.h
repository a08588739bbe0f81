// Draws one token per row: banned tokens out, then top-k, top-p, min-p in that order (as Hugging Face chains them),
// then one uniform number from Philox(seed, item, sample, position) through the inverse distribution in ascending token
// order. Filters change the draw only: the log-prob returned is of the FULL distribution, bans included in its
// normaliser. A row with a NaN or +inf logit, or with no token left, is reported as token -1 with NaN log-probs, never
// drawn from.
#pragma once
#include "core/philox.h"
#include "core/tensor.h"

namespace gavel {

struct SampleOptions {
  RandomKey key;
  bool greedy = false;  // highest logit, lowest token id on ties
  int32_t top_k = 0;    // 0: off
  float top_p = 1.0f;   // 1: off
  float min_p = 0.0f;   // 0: off
};

struct SampleToken {
  int32_t num_rows = 0;
  int32_t vocabulary = 0;
  const float* logits = nullptr;           // [B, V], scaled by the inverse temperature
  const float* log_normalizer = nullptr;   // [B]
  const float* tile_sums = nullptr;        // [B, tiles, 2] as head_logprob wrote them, or null
  const SampleOptions* options = nullptr;  // [B]
  const int32_t* banned = nullptr;         // [num_banned], ascending, for all rows
  int32_t num_banned = 0;
  int32_t* tokens = nullptr;       // [B] out
  float* logprob = nullptr;        // [B] out: logits[token] - log_normalizer
  float* log_kept_mass = nullptr;  // [B] out: log of the probability that filters and bans left
};

}  // namespace gavel
