#include "model/config_reader.h"

#include <cmath>
#include <cstdio>

namespace gavel {
namespace {

constexpr const char* kRemedy = ". Use the config.json that the checkpoint was published with.";

std::string shown(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.15g", value);
  return text;
}

}  // namespace

const double* ConfigReader::find(const std::string& name) const {
  const auto it = config_.numbers.find(name);
  return it == config_.numbers.end() || it->second.size() != 1 ? nullptr : &it->second[0];
}

std::string ConfigReader::received(const std::string& name) const {
  const auto text = config_.texts.find(name);
  if (text != config_.texts.end()) return "received \"" + text->second + "\"";
  return has(name) ? "received a list" : "it is missing";
}

void ConfigReader::refuse_other_kind(const std::string& name, const std::string& expected) {
  if (!has(name) && config_.texts.count(name) == 0) return;
  refuse("Expected " + expected + " for `" + name + "` in config.json of family " + config_.family + " but " +
         received(name) + kRemedy);
}

int32_t ConfigReader::checked(const std::string& name, double value, int32_t least, int32_t most) {
  if (value >= least && value <= most && value == std::floor(value)) return static_cast<int32_t>(value);
  refuse("Expected an integer from " + std::to_string(least) + " to " + std::to_string(most) + " for `" + name +
         "` in config.json of family " + config_.family + " but received " + shown(value) + kRemedy);
  return least;
}

int32_t ConfigReader::integer(const std::string& name, int32_t most) {
  const double* const value = find(name);
  if (value != nullptr) return checked(name, *value, 1, most);
  refuse("Expected an integer >= 1 for `" + name + "` in config.json of family " + config_.family + " but " +
         received(name) + kRemedy);
  return 1;
}

int32_t ConfigReader::optional(const std::string& name, int32_t otherwise, int32_t least, int32_t most) {
  const double* const value = find(name);
  if (value == nullptr) refuse_other_kind(name, "an integer");
  return value == nullptr ? otherwise : checked(name, *value, least, most);
}

double ConfigReader::number(const std::string& name) {
  const double* const value = find(name);
  if (value != nullptr) return *value;
  refuse("Expected a number for `" + name + "` in config.json of family " + config_.family + " but " + received(name) +
         kRemedy);
  return 1;
}

double ConfigReader::number(const std::string& name, double otherwise) {
  const double* const value = find(name);
  if (value == nullptr) refuse_other_kind(name, "a number");
  return value == nullptr ? otherwise : *value;
}

std::vector<double> ConfigReader::numbers(const std::string& name) const {
  const auto it = config_.numbers.find(name);
  return it == config_.numbers.end() ? std::vector<double>{} : it->second;
}

std::vector<int32_t> ConfigReader::integers(const std::string& name, int32_t most) {
  std::vector<int32_t> result;
  for (double value : numbers(name)) result.push_back(checked(name, value, 0, most));
  return result;
}

std::string ConfigReader::text(const std::string& name, const std::string& otherwise) const {
  const auto it = config_.texts.find(name);
  return it == config_.texts.end() ? otherwise : it->second;
}

std::string ConfigReader::choice(const std::string& name, const std::string& otherwise,
                                 std::initializer_list<const char*> known) {
  const std::string value = text(name, otherwise);
  std::string list;
  for (const char* one : known) {
    if (value == one) return value;
    list += (list.empty() ? "" : ", ") + std::string(one);
  }
  refuse_as(Code::unsupported, "Expected one of " + list + " for `" + name + "` in config.json of family " +
                                   config_.family + " but it is \"" + value +
                                   "\". Choose a checkpoint with one of those.");
  return value;
}

void ConfigReader::refuse_as(Code code, std::string message) {
  if (status_.ok()) status_ = Status::error(code, std::move(message));
}

}  // namespace gavel
