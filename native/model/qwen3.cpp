// Qwen3 dense text decoder (Yang et al. 2025): Llama's shape with QK-norm and a head size of its own.
#include "model/text_model.h"

namespace gavel {

Status make_qwen3(const ModelConfig& config, Weights* weights, std::unique_ptr<Architecture>* architecture) {
  ConfigReader reader(config);
  DecoderForm form;
  form.qkv_bias = form.output_bias = reader.flag("attention_bias", false);
  form.qk_norm = true;
  form.head_dim = 128;
  return make_text_model(reader, form, weights, architecture);
}

}  // namespace gavel
