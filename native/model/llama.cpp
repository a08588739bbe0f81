// Llama (Touvron et al. 2023; Grattafiori et al. 2024) and what has its shape: SmolLM2, Mistral without a sliding
// window.
#include "model/text_model.h"

namespace gavel {

Status make_llama(const ModelConfig& config, Weights* weights, std::unique_ptr<Architecture>* architecture) {
  ConfigReader reader(config);
  DecoderForm form;
  form.qkv_bias = form.output_bias = reader.flag("attention_bias", false);
  form.mlp_bias = reader.flag("mlp_bias", false);
  return make_text_model(reader, form, weights, architecture);
}

}  // namespace gavel
