// One call's view of a model's PromptCache: what it may take, what it leaves, and how much that saved. Job thread only.
#pragma once
#include <span>
#include <vector>

#include "model/model.h"

namespace gavel {

// What a call did not compute again.
struct ReuseStats {
  int64_t prompt_tokens = 0, images = 0;
};

class Reuse {
 public:
  Reuse(Model& model, bool adapter_on);

  bool on() const { return cache_.budget() > 0; }
  const ReuseStats& stats() const { return stats_; }
  void count_prompt(int64_t tokens) { stats_.prompt_tokens += tokens; }
  void count_images(size_t images) { stats_.images += static_cast<int64_t>(images); }

  std::vector<ContentKey> keys_of(const std::vector<ImageInput>& images) const;
  ContentKey key_of(const std::vector<int32_t>& tokens, const std::vector<ContentKey>& images) const;
  std::shared_ptr<const KeptFeatures> features(const ContentKey& key) { return cache_.features(key); }
  std::shared_ptr<const KeptPrompt> prompt(const ContentKey& key) { return cache_.prompt(key); }

  // `rows` of the tower's output in the order of the picture's placeholders.
  void keep_features(const ContentKey& key, const VisionFeatures& made, std::span<const int32_t> rows);
  PromptCache& cache() { return cache_; }

 private:
  PromptCache& cache_;
  const TensorMemory memory_;
  bool adapter_on_, tower_adapted_;
  ReuseStats stats_;
};

}  // namespace gavel
