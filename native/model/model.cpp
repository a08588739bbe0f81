#include "model/model.h"

namespace gavel {

Status Model::create(const ModelConfig& config, std::unique_ptr<Model>* model) {
  std::unique_ptr<Model> made(new Model);
  GAVEL_RETURN_IF_ERROR(make_architecture(config, &made->weights_, &made->architecture_));
  made->weights_.set_training_state(config.state);
  made->weights_.set_planning(config.planning);
  made->arena_.set_planning(config.planning);
  GAVEL_RETURN_IF_ERROR(made->weights_.allocate(config.dtype));
  *model = std::move(made);
  return Status::success();
}

}  // namespace gavel
