// Log-probabilities of given tokens under log_softmax(hidden[rows] weight^T * inverse_temperature) over the FULL
// vocabulary, and their gradient, by tiles of 256 logits (8 panels): the [R, V] logits never exist in training. A tile
// gives (max, sum of exp) of its scaled logits; partials are merged in tile order (max, fma, exp), so training, scoring
// and sampling get the same bits. logprob = scaled_logit[token] - log_normalizer. The sampler asks for `logits` as well
// (scaled, fp32), which changes no bit of the rest.
#pragma once
#include "core/tensor.h"

namespace gavel {

inline constexpr int32_t kVocabularyTile = 256;

// Of an objective whose gradient at a target follows from that target alone: `fill` is called when log-prob (and
// entropy) of targets [begin, end) are there, on the calling thread, blocks in ascending order, and writes their
// grad_logprob (and grad_entropy).
struct HeadCoefficients {
  void* objective = nullptr;
  void (*fill)(void* objective, int32_t begin, int32_t end) = nullptr;
};

struct HeadLogprob {
  Tensor hidden;                               // [T, H]
  Tensor weight;                               // [V, H], panels
  int32_t num_targets = 0;                     // R
  const int32_t* rows = nullptr;               // [R], ascending; a row may carry several targets (the last prompt row)
  const int32_t* tokens = nullptr;             // [R]; null: no logprob wanted (the sampler draws later)
  const float* inverse_temperature = nullptr;  // [R]
  float* logprob = nullptr;                    // [R] out
  float* log_normalizer = nullptr;             // [R] out, kept for the backward
  float* entropy = nullptr;                    // [R] out or null: of the scaled distribution, nats; backward reads it
  float* logits = nullptr;                     // [R, V] out or null
  float* tile_sums = nullptr;                  // [R, tiles, 2] out or null: (max, sum) per tile, for the sampler
  // backward: d loss / d logprob and d loss / d entropy per target
  const float* grad_logprob = nullptr;  // [R]
  const float* grad_entropy = nullptr;  // [R] or null
  // With it the backward is the whole of it: it gives the forward's outputs too, and may keep logits from one to the
  // other (up to 128 MB) instead of computing them twice. Same bits either way.
  HeadCoefficients coefficients;
  Tensor grad_hidden;  // [T, H], dtype of hidden: OVERWRITTEN, rows without targets become zero; or absent
  Tensor grad_weight;  // fp32, order of weight, accumulated; or absent (a frozen head skips it)
};

}  // namespace gavel
