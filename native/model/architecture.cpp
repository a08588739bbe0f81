#include "model/architecture.h"

#include <cmath>

namespace gavel {

Status Architecture::add_image(const ImageInput&, VisionLayout*) const {
  return Status::error(Code::image_count_mismatch,
                       "Expected no images for a text-only model but received one. Load a vision-language checkpoint.");
}

Status Architecture::positions(const GroupInput& group, Positions* positions) const {
  const int32_t count = static_cast<int32_t>(group.prompt_tokens.size());
  for (int32_t axis = 0; axis < rope_axes; ++axis) {
    for (int32_t i = 0; i < count; ++i) positions->axes[axis].push_back(i);
  }
  positions->next = count;
  return Status::success();
}

int32_t ConfigReader::integer(const std::string& name) {
  const auto it = config_.numbers.find(name);
  if (it == config_.numbers.end() || it->second.size() != 1 || it->second[0] < 1 || it->second[0] > 2147483647.0 ||
      it->second[0] != std::floor(it->second[0])) {
    refuse("Expected an integer >= 1 for `" + name + "` in config.json of family " + config_.family + " but it is " +
           (it == config_.numbers.end() ? "missing." : "something else."));
    return 1;
  }
  return static_cast<int32_t>(it->second[0]);
}

int32_t ConfigReader::integer(const std::string& name, int32_t otherwise) {
  const auto it = config_.numbers.find(name);
  if (it == config_.numbers.end() || it->second.size() != 1) return otherwise;
  return static_cast<int32_t>(it->second[0]);
}

double ConfigReader::number(const std::string& name, double otherwise) {
  const auto it = config_.numbers.find(name);
  if (it == config_.numbers.end() || it->second.size() != 1) return otherwise;
  return it->second[0];
}

std::vector<int32_t> ConfigReader::integers(const std::string& name) {
  std::vector<int32_t> result;
  const auto it = config_.numbers.find(name);
  if (it == config_.numbers.end()) return result;
  for (double value : it->second) result.push_back(static_cast<int32_t>(value));
  return result;
}

void ConfigReader::refuse(std::string message) {
  if (status_.ok()) status_ = Status::error(Code::invalid_config, std::move(message));
}

}  // namespace gavel
