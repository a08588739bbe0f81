// Checked reading of JavaScript values at the addon's gate. An Argument is a value and where it stands, e.g.
// `groups[2].promptTokens`, so that every complaint names it: "Expected Int32Array for `...` but received ...".
// Everything read is a copy. Any failure throws 'invalid_argument' ('bad_data' for numbers that are not finite).
#pragma once
#include <napi.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/status.h"

namespace gavel {

class Argument {
 public:
  Argument(Napi::Value value, std::string name) : value_(value), name_(std::move(name)) {}

  Argument operator[](const char* property) const;  // demands an object
  Argument operator[](uint32_t index) const;        // demands an array
  uint32_t length() const;                          // demands an array
  bool absent() const { return value_.IsEmpty() || value_.IsUndefined(); }
  Napi::Value value() const { return value_; }
  const std::string& name() const { return name_; }

  double number() const;  // finite
  double number(double minimum, double maximum) const;
  int64_t integer(int64_t minimum, int64_t maximum) const;
  uint64_t counter() const;  // integer in [0, 2^53)
  bool boolean() const;
  std::string text() const;
  // Index of the text in `names`.
  int choice(std::initializer_list<const char*> names) const;
  Napi::Object object() const;
  // Demands an object without other properties than these: a misspelt one would be no value at all. `ignored` may be
  // there too.
  void only(std::initializer_list<std::string_view> names, std::initializer_list<std::string_view> ignored = {}) const;
  Napi::Function function() const;

  std::vector<int32_t> int32s() const;
  std::vector<uint8_t> uint8s() const;
  std::vector<float> float32s() const;
  std::vector<double> float64s() const;

  [[noreturn]] void fail(const std::string& expected, const std::string& advice = "") const;
  [[noreturn]] void fail_as(Code code, const std::string& expected, const std::string& received,
                            const std::string& advice) const;

 private:
  template <class Element>
  std::vector<Element> elements(napi_typedarray_type type, const char* type_name) const;
  Napi::Value value_;
  std::string name_;
};

// "Float32Array of 3 elements", "a string", "-1" ...
std::string describe(const Napi::Value& value);

inline constexpr int64_t kMaxInt32 = 2147483647;

}  // namespace gavel
