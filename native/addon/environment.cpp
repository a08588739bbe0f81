#include "addon/environment.h"

#include <string>

namespace gavel {
namespace {

Napi::Value new_error(Napi::Env env, const Status& status) {
  Napi::Object fields = Napi::Object::New(env);
  for (const auto& [name, value] : status.fields) fields.Set(name, value);
  const Napi::String code = Napi::String::New(env, code_name(status.code));
  const Napi::String message = Napi::String::New(env, status.message);
  Environment& environment = Environment::of(env);
  if (environment.error_class.IsEmpty()) {
    Napi::Object error = Napi::Error::New(env, status.message).Value();
    error.Set("code", code);
    error.Set("fields", fields);
    return error;
  }
  Napi::Object options = Napi::Object::New(env);
  options.Set("fields", fields);
  return environment.error_class.New({code, message, options});
}

std::string text_property(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  return value.IsString() ? value.As<Napi::String>().Utf8Value() : std::string();
}

}  // namespace

Napi::Value make_error(Napi::Env env, const Status& status, Napi::Value site) {
  Napi::Value value = new_error(env, status);
  if (site.IsEmpty() || !site.IsObject() || !value.IsObject()) return value;
  const std::string stack = text_property(site.As<Napi::Object>(), "stack");
  const size_t frames = stack.find("\n    at ");
  if (frames == std::string::npos) return value;
  Napi::Object error = value.As<Napi::Object>();
  error.Set("stack", text_property(error, "name") + ": " + status.message + stack.substr(frames));
  return value;
}

void throw_status(Napi::Env env, const Status& status) { throw Napi::Error(env, new_error(env, status)); }

}  // namespace gavel
