// Qwen2 text decoder (Yang et al. 2024), tied or untied head.
#include "model/decoder.h"

namespace gavel {
namespace {

class Qwen2 final : public Architecture {
 public:
  Decoder decoder;
  Tensor forward(Tape& tape, const Weights& weights, const PackView& pack) const override {
    return decoder.forward(tape, weights, pack, {});
  }
};

}  // namespace

Status make_qwen2(const ModelConfig& config, Weights* weights, std::unique_ptr<Architecture>* architecture) {
  auto model = std::make_unique<Qwen2>();
  ConfigReader reader(config);
  GAVEL_RETURN_IF_ERROR(model->decoder.declare(reader, "model.", weights, model.get()));
  *architecture = std::move(model);
  return Status::success();
}

}  // namespace gavel
