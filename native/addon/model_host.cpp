#include "addon/model_host.h"

#include <utility>

#include "ops/adamw.h"

namespace gavel {

std::vector<TensorRow> tensor_rows(const Weights& weights) {
  std::vector<TensorRow> rows;
  for (int32_t i = 0; i < weights.size(); ++i) {
    const Parameter& parameter = weights.parameter(i);
    for (const SourceTensor& source : parameter.sources) {
      const bool first = &source == &parameter.sources.front();
      rows.push_back({source.name, source.shape, i, parameter.trainable, parameter.adapter, parameter.kind,
                      first ? state_blocks(parameter.count()) : 0, parameter.reward_head, parameter.dtype()});
    }
  }
  return rows;
}

Status ModelHost::create(const ModelConfig& config, Context& context, std::shared_ptr<ModelHost>* host) {
  auto made = std::make_shared<ModelHost>();
  GAVEL_RETURN_IF_ERROR(Model::create(config, context.device, &made->model));
  made->trainer = std::make_unique<Trainer>(*made->model, context);
  made->sampler = std::make_unique<Sampler>(*made->model, context);
  made->family = config.family;
  made->dtype = config.dtype;
  made->state = config.state;
  made->tensors = tensor_rows(made->model->weights());
  made->take_snapshot();
  *host = std::move(made);
  return Status::success();
}

void ModelHost::release() {
  sampler.reset();
  trainer.reset();
  model.reset();
  kv_bytes = sampling_bytes = 0;
  take_snapshot();
}

void ModelHost::take_snapshot() {
  ModelMemory now;
  if (model) {
    const Weights& weights = model->weights();
    now = {weights.weight_bytes(),
           weights.gradient_bytes(),
           weights.optimizer_bytes(),
           trainer->activation_bytes(),
           kv_bytes,
           sampling_bytes,
           model->prompt_cache().size_bytes()};
    step_count.store(trainer->step_count());
  }
  std::lock_guard lock(mutex_);
  memory_ = now;
}

ModelMemory ModelHost::memory() {
  std::lock_guard lock(mutex_);
  return memory_;
}

}  // namespace gavel
