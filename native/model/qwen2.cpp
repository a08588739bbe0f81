// Qwen2 text decoder (Yang et al. 2024): Llama's shape with biases on queries, keys and values; tied or untied head.
#include "model/text_model.h"

namespace gavel {

Status make_qwen2(const ModelConfig& config, Weights* weights, std::unique_ptr<Architecture>* architecture) {
  ConfigReader reader(config);
  DecoderForm form;
  form.qkv_bias = true;
  return make_text_model(reader, form, weights, architecture);
}

}  // namespace gavel
