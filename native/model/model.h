// A model: weights and the architecture that names them and builds the graph. One engine, one job thread.
#pragma once
#include <memory>

#include "core/arena.h"
#include "core/context.h"
#include "model/architecture.h"
#include "model/input.h"
#include "model/prompt_cache.h"
#include "model/reward_head.h"
#include "model/weights.h"

namespace gavel {

class Model {
 public:
  // Checks the config, declares and allocates the weights (zero), on `device` when it is not null.
  static Status create(const ModelConfig& config, Device* device, std::unique_ptr<Model>* model);

  Weights& weights() { return weights_; }
  const Weights& weights() const { return weights_; }
  const Architecture& architecture() const { return *architecture_; }
  Arena& arena() { return arena_; }
  // Whoever changes weights drops what was computed from them.
  PromptCache& prompt_cache() { return prompt_cache_; }
  // Drops what depends on weights that train: all, but for the features of a frozen tower.
  void drop_trained();
  const RewardHead& reward_head() const { return reward_head_; }
  // From then on packs know the reward token. Errors: those of gavel::attach_reward_head, and invalid_argument for a
  // token that is not of the vocabulary or stands for pixels.
  Status attach_reward_head(const RewardHeadOptions& options);

 private:
  Model() = default;
  std::unique_ptr<Architecture> architecture_;
  Weights weights_;
  RewardHead reward_head_;
  Arena arena_;  // activations of this model's steps
  PromptCache prompt_cache_;
};

}  // namespace gavel
