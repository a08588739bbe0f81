#include "model/model.h"

namespace gavel {

Status Model::create(const ModelConfig& config, Device* device, std::unique_ptr<Model>* model) {
  std::unique_ptr<Model> made(new Model);
  GAVEL_RETURN_IF_ERROR(make_architecture(config, &made->weights_, &made->architecture_));
  made->weights_.set_training_state(config.state);
  // A plan takes addresses alone, and those of the process cost nothing.
  const TensorMemory memory(config.planning ? nullptr : device);
  made->weights_.set_memory(memory);
  made->arena_.set_memory(memory);
  made->weights_.set_planning(config.planning);
  made->arena_.set_planning(config.planning);
  if (!config.planning) made->prompt_cache_.set_budget(config.prompt_cache_bytes);
  GAVEL_RETURN_IF_ERROR(made->weights_.allocate(config.dtype));
  GAVEL_RETURN_IF_ERROR(memory.finish());
  *model = std::move(made);
  return Status::success();
}

Status Model::attach_reward_head(const RewardHeadOptions& options) {
  if (options.token < 0 || options.token >= architecture_->vocabulary || architecture_->is_placeholder(options.token)) {
    return Status::error(Code::invalid_argument, "Expected a reward token below the vocabulary size " +
                                                     std::to_string(architecture_->vocabulary) +
                                                     " that stands for no picture but received " +
                                                     std::to_string(options.token) + ". Choose another token.");
  }
  GAVEL_RETURN_IF_ERROR(gavel::attach_reward_head(weights_, architecture_->hidden_size, options, &reward_head_));
  architecture_->reward_token = options.token;
  prompt_cache_.drop_all();
  return Status::success();
}

void Model::drop_trained() {
  if (architecture_->tower_trains(weights_)) {
    prompt_cache_.drop_all();
  } else {
    prompt_cache_.drop_prompts();
  }
}

}  // namespace gavel
