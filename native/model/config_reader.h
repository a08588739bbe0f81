// Reads values out of a flattened config.json. The first missing or bad one is kept in status(), by its name; later
// reads still return something usable, so a family reads all it needs and looks once.
#pragma once
#include <initializer_list>
#include <string>
#include <vector>

#include "core/status.h"
#include "model/input.h"

namespace gavel {

class ConfigReader {
 public:
  explicit ConfigReader(const ModelConfig& config) : config_(config) {}
  // Of sizes, and of layers and heads: what a hostile config asks for stays countable in bytes.
  static constexpr int32_t kLargest = 1 << 20, kMost = 1024;

  int32_t integer(const std::string& name, int32_t most = kLargest);  // from 1 on
  int32_t optional(const std::string& name, int32_t otherwise, int32_t least = 1, int32_t most = kLargest);
  int32_t token(const std::string& name) { return optional(name, -1, -1); }  // -1: none
  bool flag(const std::string& name, bool otherwise) { return optional(name, otherwise ? 1 : 0, 0, 1) != 0; }
  double number(const std::string& name);
  double number(const std::string& name, double otherwise);
  std::vector<double> numbers(const std::string& name) const;                       // empty when absent
  std::vector<int32_t> integers(const std::string& name, int32_t most = kLargest);  // from 0 on; empty when absent
  std::string text(const std::string& name, const std::string& otherwise) const;
  // Refuses as unsupported any text but these.
  std::string choice(const std::string& name, const std::string& otherwise, std::initializer_list<const char*> known);
  bool has(const std::string& name) const { return config_.numbers.count(name) != 0; }

  void refuse(std::string message) { refuse_as(Code::invalid_config, std::move(message)); }
  void refuse_as(Code code, std::string message);
  const Status& status() const { return status_; }

 private:
  const double* find(const std::string& name) const;
  // "received ..." for a value of another kind than a number, or "it is missing".
  std::string received(const std::string& name) const;
  // An optional value of another kind is refused, never taken for an absent one.
  void refuse_other_kind(const std::string& name, const std::string& expected);
  int32_t checked(const std::string& name, double value, int32_t least, int32_t most);
  const ModelConfig& config_;
  Status status_;
};

}  // namespace gavel
