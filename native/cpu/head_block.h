// A block of targets on its way through the head: what forward and backward share above single tiles. Memory is one
// piece of scratch a call, laid out by HeadMemory.
#pragma once
#include "cpu/head_tile.h"

namespace gavel::cpu {

// Hands out parts of one piece of memory, each on a cache line of its own; of null it only counts.
class HeadMemory {
 public:
  explicit HeadMemory(uint8_t* base) : base_(base) {}
  template <class Element>
  Element* take(int64_t count) {
    uint8_t* const at = base_ == nullptr ? nullptr : base_ + used_;
    used_ += static_cast<size_t>(round_up(count * static_cast<int64_t>(sizeof(Element)), 128));
    return reinterpret_cast<Element*>(at);
  }
  size_t used() const { return used_; }

 private:
  uint8_t* base_;
  size_t used_ = 0;
};

struct HeadBlock {
  int64_t begin = 0;         // first target
  HeadRows rows;             // packed hidden rows of the targets
  float* sums = nullptr;     // [rows, tiles, 2]
  float* moments = nullptr;  // [rows, tiles], or null: no entropy wanted
  float* kept = nullptr;     // [tiles][padded rows][256] scaled logits, or null: dropped tile by tile
  int64_t padded = 0;        // rows with the padding of the last group
  float* kept_tile(int64_t tile, int64_t row) const { return kept + (tile * padded + row) * kVocabularyTile; }
};

// Groups of rows per item: packed rows in L2, and several items per worker.
int64_t head_groups_per_item(const Context& context, const HeadRows& rows, int64_t tiles);
inline size_t head_logits_bytes(const HeadRows& rows, int64_t groups) {
  return static_cast<size_t>(groups * rows.groups.size(0) * kVocabularyTile) * sizeof(float);
}

// Log-probs, normalizers and (where moments are) entropies of a block, and what else `p` asks for.
void head_score(Context& context, const GemmPath& path, const HeadLogprob& p, const HeadShape& shape,
                const HeadBlock& block);

}  // namespace gavel::cpu
