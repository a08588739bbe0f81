// How objectives see a batch: the completions of its groups, concatenated in order, one value a token.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "model/input.h"

namespace gavel {

// Calls visit(completion, first token's index) over a batch.
template <class Visit>
void for_each_completion(const std::vector<const GroupInput*>& batch, const Visit& visit) {
  size_t first = 0;
  for (const GroupInput* group : batch) {
    for (const CompletionInput& completion : group->completions) {
      visit(completion, first);
      first += completion.tokens.size();
    }
  }
}

inline bool active(const CompletionInput& completion, size_t token) {
  return completion.mask.empty() || completion.mask[token] != 0;
}

inline int64_t active_tokens(const CompletionInput& completion) {
  if (completion.mask.empty()) return static_cast<int64_t>(completion.tokens.size());
  return std::count_if(completion.mask.begin(), completion.mask.end(), [](uint8_t one) { return one != 0; });
}

// What a batch's targets are to a loss over flat arrays.
struct FlatBatch {
  std::vector<int32_t> offsets{0};  // [completions + 1]
  std::vector<uint8_t> mask;        // [tokens]
};

inline FlatBatch flatten(const std::vector<const GroupInput*>& batch) {
  FlatBatch flat;
  for_each_completion(batch, [&](const CompletionInput& completion, size_t first) {
    flat.offsets.push_back(static_cast<int32_t>(first + completion.tokens.size()));
    for (size_t t = 0; t < completion.tokens.size(); ++t) flat.mask.push_back(active(completion, t) ? 1 : 0);
  });
  return flat;
}

}  // namespace gavel
