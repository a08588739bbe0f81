#include "addon/arguments.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "addon/environment.h"

namespace gavel {
namespace {

const char* typed_array_name(napi_typedarray_type type) {
  constexpr const char* kNames[] = {"Int8Array",    "Uint8Array",    "Uint8ClampedArray", "Int16Array",
                                    "Uint16Array",  "Int32Array",    "Uint32Array",       "Float32Array",
                                    "Float64Array", "BigInt64Array", "BigUint64Array"};
  const size_t index = static_cast<size_t>(type);
  return index < sizeof(kNames) / sizeof(kNames[0]) ? kNames[index] : "a typed array";
}

std::string number_text(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  char text[40];
  std::snprintf(text, sizeof(text), "%.15g", value);
  return text;
}

}  // namespace

std::string describe(const Napi::Value& value) {
  if (value.IsEmpty() || value.IsUndefined()) return "undefined";
  if (value.IsNull()) return "null";
  if (value.IsBoolean()) return value.As<Napi::Boolean>().Value() ? "true" : "false";
  if (value.IsNumber()) return number_text(value.As<Napi::Number>().DoubleValue());
  if (value.IsString()) {
    const std::string text = value.As<Napi::String>().Utf8Value();
    return text.size() > 60 ? "a string of " + std::to_string(text.size()) + " bytes" : "\"" + text + "\"";
  }
  if (value.IsTypedArray()) {
    const auto array = value.As<Napi::TypedArray>();
    return std::string(typed_array_name(array.TypedArrayType())) + " of " + std::to_string(array.ElementLength()) +
           " elements";
  }
  if (value.IsArray()) return "an array of " + std::to_string(value.As<Napi::Array>().Length()) + " elements";
  if (value.IsFunction()) return "a function";
  if (value.IsBigInt()) return "a bigint";
  if (value.IsSymbol()) return "a symbol";
  return "an object";
}

void Argument::fail_as(Code code, const std::string& expected, const std::string& received,
                       const std::string& advice) const {
  throw_status(value_.Env(), Status::error(code, "Expected " + expected + " for `" + name_ + "` but received " +
                                                     received + "." + (advice.empty() ? "" : " " + advice))
                                 .with("name", name_)
                                 .with("expected", expected)
                                 .with("received", received));
}

void Argument::fail(const std::string& expected, const std::string& advice) const {
  fail_as(Code::invalid_argument, expected, describe(value_), advice);
}

Argument Argument::operator[](const char* property) const {
  return {object().Get(property), name_.empty() ? std::string(property) : name_ + "." + property};
}

Argument Argument::operator[](uint32_t index) const {
  if (!value_.IsArray()) fail("an array");
  return {value_.As<Napi::Array>().Get(index), name_ + "[" + std::to_string(index) + "]"};
}

void Argument::only(std::initializer_list<std::string_view> names,
                    std::initializer_list<std::string_view> ignored) const {
  const Napi::Array given = object().GetPropertyNames();
  for (uint32_t i = 0; i < given.Length(); ++i) {
    const std::string name = given.Get(i).ToString().Utf8Value();
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    if (std::find(ignored.begin(), ignored.end(), name) != ignored.end()) continue;
    std::string all;
    for (const std::string_view one : names) all += (all.empty() ? "" : ", ") + std::string(one);
    fail_as(Code::invalid_argument, "no properties but " + all, "`" + name + "`", "Correct its name or leave it out.");
  }
}

uint32_t Argument::length() const {
  if (!value_.IsArray()) fail("an array");
  return value_.As<Napi::Array>().Length();
}

double Argument::number() const {
  if (!value_.IsNumber()) fail("a finite number");
  const double number = value_.As<Napi::Number>().DoubleValue();
  if (!std::isfinite(number)) fail_as(Code::bad_data, "a finite number", number_text(number), "");
  return number;
}

double Argument::number(double minimum, double maximum) const {
  const double number = this->number();
  if (number < minimum || number > maximum) {
    fail(std::isinf(maximum) ? "a number >= " + number_text(minimum)
                             : "a number from " + number_text(minimum) + " to " + number_text(maximum));
  }
  return number;
}

int64_t Argument::integer(int64_t minimum, int64_t maximum) const {
  const double number = value_.IsNumber() ? value_.As<Napi::Number>().DoubleValue() : 0;
  const auto wanted = [&] {
    // The limit of the machine's integers is worth saying to whoever passed it.
    const bool open = maximum == kMaxInt32 && !(number > static_cast<double>(maximum));
    return open ? "an integer >= " + std::to_string(minimum)
                : "an integer from " + std::to_string(minimum) + " to " + std::to_string(maximum);
  };
  if (!value_.IsNumber()) fail(wanted());
  if (!(number >= static_cast<double>(minimum) && number <= static_cast<double>(maximum)) ||
      number != std::floor(number)) {
    fail(wanted());
  }
  return static_cast<int64_t>(number);
}

uint64_t Argument::counter() const { return static_cast<uint64_t>(integer(0, (int64_t{1} << 53) - 1)); }

bool Argument::boolean() const {
  if (!value_.IsBoolean()) fail("a boolean");
  return value_.As<Napi::Boolean>().Value();
}

std::string Argument::text() const {
  if (!value_.IsString()) fail("a string");
  return value_.As<Napi::String>().Utf8Value();
}

int Argument::choice(std::initializer_list<const char*> names) const {
  std::string listed;
  const std::string given = value_.IsString() ? value_.As<Napi::String>().Utf8Value() : std::string();
  int index = 0;
  for (const char* name : names) {
    if (given == name) return index;
    listed += (index++ == 0 ? "'" : ", '") + std::string(name) + "'";
  }
  fail("one of " + listed);
}

Napi::Object Argument::object() const {
  if (!value_.IsObject()) fail("an object");
  return value_.As<Napi::Object>();
}

Napi::Function Argument::function() const {
  if (!value_.IsFunction()) fail("a function");
  return value_.As<Napi::Function>();
}

template <class Element>
std::vector<Element> Argument::elements(napi_typedarray_type type, const char* type_name) const {
  if (!value_.IsTypedArray() || value_.As<Napi::TypedArray>().TypedArrayType() != type) fail(type_name);
  const auto array = value_.As<Napi::TypedArrayOf<Element>>();
  const size_t count = array.ElementLength();
  std::vector<Element> copy(count);
  if (count > 0) std::memcpy(copy.data(), array.Data(), count * sizeof(Element));
  return copy;
}

std::vector<int32_t> Argument::int32s() const { return elements<int32_t>(napi_int32_array, "Int32Array"); }
std::vector<uint8_t> Argument::uint8s() const { return elements<uint8_t>(napi_uint8_array, "Uint8Array"); }
std::vector<float> Argument::float32s() const { return elements<float>(napi_float32_array, "Float32Array"); }
std::vector<double> Argument::float64s() const { return elements<double>(napi_float64_array, "Float64Array"); }

}  // namespace gavel
