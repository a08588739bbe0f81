// The NativeEngine class of the contract: a job thread with the models that live on it.
#pragma once
#include <napi.h>

#include <memory>
#include <vector>

#include "addon/bridge.h"
#include "addon/model_host.h"

namespace gavel {

class NativeEngine : public Napi::ObjectWrap<NativeEngine> {
 public:
  static void define(Napi::Env env);
  static Napi::Value create(const Napi::CallbackInfo& info);

  explicit NativeEngine(const Napi::CallbackInfo& info);
  ~NativeEngine() override;

 private:
  // Models of one engine, touched on its job thread only, so that disposing the engine frees them all.
  using Models = std::vector<std::weak_ptr<ModelHost>>;

  Napi::Value threads(const Napi::CallbackInfo& info);
  Napi::Value isa(const Napi::CallbackInfo& info);
  Napi::Value create_model(const Napi::CallbackInfo& info);
  Napi::Value abort(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);

  std::shared_ptr<Bridge> bridge_;
  std::shared_ptr<Models> models_ = std::make_shared<Models>();
};

}  // namespace gavel
