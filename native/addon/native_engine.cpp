#include "addon/native_engine.h"

#include <utility>

#include "addon/arguments.h"
#include "addon/cuda_plugin.h"
#include "addon/environment.h"
#include "addon/inputs.h"
#include "addon/native_model.h"

namespace gavel {
void NativeEngine::define(Napi::Env env) {
  Environment::of(env).engine_class =
      Napi::Persistent(DefineClass(env, "NativeEngine",
                                   {
                                       InstanceAccessor<&NativeEngine::threads>("threads"),
                                       InstanceAccessor<&NativeEngine::isa>("isa"),
                                       InstanceMethod<&NativeEngine::create_model>("createModel"),
                                       InstanceMethod<&NativeEngine::abort>("abort"),
                                       InstanceMethod<&NativeEngine::dispose>("dispose"),
                                   }));
}

Napi::Value NativeEngine::create(const Napi::CallbackInfo& info) {
  const Argument options(info[0], "options");
  const int threads = static_cast<int>(options["threads"].integer(1, ThreadPool::kMaxThreads));
  const Argument isa = options["isa"];
  CpuPath path;
  throw_if_error(info.Env(), choose_path(isa.absent() ? "" : isa.text(), &path));
  std::vector<int> cores;
  if (const Argument pins = options["pinThreads"]; !pins.absent() && !(pins.value().IsBoolean() && !pins.boolean())) {
    std::vector<int> wanted;
    for (uint32_t i = 0; !pins.value().IsBoolean() && i < pins.length(); ++i)
      wanted.push_back(static_cast<int>(pins[i].integer(0, kMaxInt32)));
    throw_if_error(info.Env(), choose_cores(wanted, threads, &cores));
  }
  std::unique_ptr<Device> device;
  if (const Argument wanted = options["device"]; !wanted.absent())
    throw_if_error(info.Env(), open_cuda(static_cast<int32_t>(wanted.integer(0, kMaxInt32)), &device));
  if (const Argument wanted = options["exactness"]; !wanted.absent() && wanted.text() == "fastest") {
    if (device == nullptr) {
      throw_status(info.Env(),
                   Status::error(Code::unsupported,
                                 "Expected 'bitwise' for `exactness` on the CPU but received 'fastest'. It has "
                                 "no kernels for that; leave it out, or name a CUDA `device`."));
    }
    device->set_exactness(Exactness::fastest);
  }
  Environment& environment = Environment::of(info.Env());
  environment.constructing = true;
  Napi::Object object = environment.engine_class.New({});
  Unwrap(object)->bridge_ = Bridge::create(info.Env(), threads, path, std::move(cores), std::move(device));
  return object;
}

NativeEngine::NativeEngine(const Napi::CallbackInfo& info) : Napi::ObjectWrap<NativeEngine>(info) {
  if (!std::exchange(Environment::of(info.Env()).constructing, false)) {
    throw_status(info.Env(),
                 Status::error(Code::invalid_argument,
                               "Expected createEngine() to make an engine. Call it instead of the constructor."));
  }
}

// The net under an engine nobody disposed. Pending work holds the wrapper, so the job thread is idle here.
NativeEngine::~NativeEngine() {
  if (bridge_) bridge_->abandon(Env());
}

Napi::Value NativeEngine::threads(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), bridge_->threads());
}

Napi::Value NativeEngine::isa(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), bridge_->isa()); }

Napi::Value NativeEngine::create_model(const Napi::CallbackInfo& info) {
  ModelConfig config = model_config_from({info[0], "spec"});
  const Napi::Object self = info.This().As<Napi::Object>();
  auto engine = std::make_shared<Napi::ObjectReference>(Napi::Weak(self));
  return bridge_->run<std::shared_ptr<ModelHost>>(
      info.Env(), self, {},
      [config = std::move(config), bridge = bridge_.get(), models = models_](
          const Job&, std::shared_ptr<ModelHost>* host) -> Status {
        GAVEL_RETURN_IF_ERROR(ModelHost::create(config, bridge->context(), host));
        std::erase_if(*models, [](const std::weak_ptr<ModelHost>& model) { return model.expired(); });
        models->push_back(*host);
        return Status::success();
      },
      // The run holds the wrapper while this is called, so the weak reference is alive.
      [engine, bridge = bridge_](Napi::Env env, std::shared_ptr<ModelHost>& host) -> Napi::Value {
        return NativeModel::create(env, engine->Value(), bridge, std::move(host));
      });
}

Napi::Value NativeEngine::abort(const Napi::CallbackInfo& info) {
  bridge_->abort(Argument(info[0], "job").counter());
  return info.Env().Undefined();
}

Napi::Value NativeEngine::dispose(const Napi::CallbackInfo& info) {
  return bridge_->dispose(info.Env(), info.This().As<Napi::Object>(), [models = models_] {
    for (const std::weak_ptr<ModelHost>& model : *models) {
      if (const auto host = model.lock()) host->release();
    }
    models->clear();
  });
}

}  // namespace gavel
