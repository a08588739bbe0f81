// Which tokens of one row may be drawn. Temperature, bans, top-k, top-p and min-p each keep a prefix of the tokens
// ordered by (logit descending, id ascending), so the kept set is one bound; it is found from tile maxima and
// selections, without a sort. Set semantics of Hugging Face's warpers: top-k keeps every tie of the k-th logit; top-p
// drops a token when it and all below it have at most 1 - top_p of the mass (equal logits: the higher id is dropped
// first); min-p compares with the largest probability.
#pragma once
#include "core/context.h"
#include "ops/head_logprob.h"
#include "ops/sample_token.h"

namespace gavel::cpu {

inline constexpr int64_t kSampleTile = kVocabularyTile;  // tiles have the head's sums, bit for bit

struct Candidate {
  float logit;
  float mass;  // exp(logit - largest logit)
  int32_t id;
};

// Memory of one worker for rows of `vocabulary` logits.
struct SampleMemory {
  float* tile_max;        // [tiles]
  float* tile_sum;        // [tiles]: sum of exp(logit - tile_max)
  float* ordered;         // [vocabulary]: selections of values
  Candidate* candidates;  // [vocabulary], ascending ids
  Candidate* selection;   // [vocabulary]

  static size_t size_bytes(int64_t vocabulary);
  static SampleMemory at(uint8_t* memory, int64_t vocabulary);
};

struct RowView {
  const float* logits = nullptr;     // [vocabulary]
  const float* tile_sums = nullptr;  // [tiles, 2] as head_logprob wrote them, or null
  int64_t vocabulary = 0;
  const int32_t* banned = nullptr;  // ascending
  int32_t num_banned = 0;
};

// What one row's filters left. Everything is summed in double in ascending order, so the bits depend on the row alone.
class KeptTokens {
 public:
  KeptTokens(Isa isa, const RowView& row, const SampleMemory& memory) : isa_(isa), row_(row), memory_(memory) {}

  // Reads the row's tiles. False when a logit is NaN or +inf, or when no token is left.
  bool open();
  // Applies the options' filters; open() was true.
  void filter(const SampleOptions& options);

  float largest_logit() const { return largest_; }
  bool filtered() const { return filtered_; }
  // Sum of exp(logit - largest logit) over the kept tokens.
  double mass() const { return mass_; }
  bool keeps(int32_t token) const;
  // The first kept token, in ascending ids, at which the running mass passes uniform * mass().
  int32_t draw(float uniform) const;
  // Lowest id with the largest logit.
  int32_t greedy() const;

 private:
  int64_t tiles() const { return (row_.vocabulary + kSampleTile - 1) / kSampleTile; }
  int64_t read_tile(int64_t tile, float* values) const;
  bool has_ban(int64_t tile) const;
  double tile_mass(int64_t tile) const;
  void gather(float lowest);
  void keep_top_k(int32_t top_k);
  void keep_top_p(float top_p, bool gathered, double total);
  void set_masses();

  Isa isa_;
  RowView row_;
  SampleMemory memory_;
  float largest_ = 0;
  double mass_ = 0;
  bool filtered_ = false;
  int64_t count_ = 0;  // candidates kept, when filtered
};

}  // namespace gavel::cpu
