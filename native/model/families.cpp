// The list of families, by `model_type` of config.json.
#include "model/architecture.h"

namespace gavel {

Status make_architecture(const ModelConfig& config, Weights* weights, std::unique_ptr<Architecture>* architecture) {
  if (config.family == "qwen2") return make_qwen2(config, weights, architecture);
  if (config.family == "qwen2_5_vl") return make_qwen2_5_vl(config, weights, architecture);
  return Status::error(Code::unsupported, "Expected `model_type` qwen2 or qwen2_5_vl but received \"" + config.family +
                                              "\". Choose a checkpoint of one of these families.");
}

}  // namespace gavel
