// The list of families, by `model_type` of config.json.
#include "model/architecture.h"

namespace gavel {
namespace {

struct Family {
  const char* name;
  Status (*make)(const ModelConfig&, Weights*, std::unique_ptr<Architecture>*);
};

constexpr Family kFamilies[] = {
    {"llama", make_llama},           {"qwen2", make_qwen2},       {"qwen3", make_qwen3},
    {"qwen2_5_vl", make_qwen2_5_vl}, {"qwen3_vl", make_qwen3_vl}, {"llava_onevision", make_llava_onevision},
};

}  // namespace

Status make_architecture(const ModelConfig& config, Weights* weights, std::unique_ptr<Architecture>* architecture) {
  std::string known;
  for (const Family& family : kFamilies) {
    if (config.family == family.name) return family.make(config, weights, architecture);
    known += (known.empty() ? "" : ", ") + std::string(family.name);
  }
  return Status::error(Code::unsupported, "Expected `model_type` to be one of " + known + " but received \"" +
                                              config.family + "\". Choose a checkpoint of one of these families.");
}

}  // namespace gavel
