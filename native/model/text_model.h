// A decoder and nothing else: what the text families are made of.
#pragma once
#include "model/decoder.h"

namespace gavel {

class TextModel final : public Architecture {
 public:
  Decoder decoder;
  Tensor decode(Tape& tape, const Weights& weights, const PackView& pack, const VisionFeatures& vision) const override {
    return decoder.forward(tape, weights, pack, vision);
  }
};

inline Status make_text_model(ConfigReader& config, const DecoderForm& form, Weights* weights,
                              std::unique_ptr<Architecture>* architecture) {
  auto model = std::make_unique<TextModel>();
  GAVEL_RETURN_IF_ERROR(model->decoder.declare(config, form, weights, model.get()));
  *architecture = std::move(model);
  return Status(config.status());
}

}  // namespace gavel
