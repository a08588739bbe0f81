// The module's exports, as src/binding/contract.ts types them. One set per JavaScript environment.
#include <dlfcn.h>
#include <napi.h>

#include <algorithm>
#include <string>
#include <thread>

#include "addon/arguments.h"
#include "addon/cuda_plugin.h"
#include "addon/environment.h"
#include "addon/kernels.h"
#include "addon/native_engine.h"
#include "addon/native_model.h"
#include "core/build_id.h"
#include "core/context.h"
#include "core/status.h"

namespace gavel {
namespace {

Napi::Value info(const Napi::CallbackInfo& call) {
  const Napi::Env env = call.Env();
  const CudaProbe probe = probe_cuda();
  Napi::Array devices = Napi::Array::New(env, probe.devices.size());
  for (size_t i = 0; i < probe.devices.size(); ++i) {
    Napi::Object device = Napi::Object::New(env);
    device.Set("name", std::string(probe.devices[i].name));
    device.Set("memoryBytes", static_cast<double>(probe.devices[i].memory_bytes));
    device.Set("computeCapability",
               std::to_string(probe.devices[i].major) + "." + std::to_string(probe.devices[i].minor));
    devices.Set(static_cast<uint32_t>(i), device);
  }
  Napi::Object cuda = Napi::Object::New(env);
  cuda.Set("available", probe.status.ok());
  cuda.Set("reason", probe.status.message);
  cuda.Set("devices", devices);
  if (probe.has_plugin) {
    Napi::Object versions = Napi::Object::New(env);
    versions.Set("driver", std::string(probe.versions.driver));
    versions.Set("runtime", std::string(probe.versions.runtime));
    versions.Set("cublasLt", std::string(probe.versions.cublaslt));
    cuda.Set("versions", versions);
  }
  Napi::Object result = Napi::Object::New(env);
  CpuPath path;
  throw_if_error(env, choose_path("", &path));
  Napi::Array isas = Napi::Array::New(env, cpu_paths().size());
  for (size_t i = 0; i < cpu_paths().size(); ++i) isas.Set(static_cast<uint32_t>(i), path_name(cpu_paths()[i]));
  result.Set("isa", path_name(path));
  result.Set("isas", isas);
  result.Set("engineThreads", static_cast<double>(EngineThreads::live()));
  result.Set("hardwareThreads", static_cast<double>(std::max(1u, std::thread::hardware_concurrency())));
  result.Set("cuda", cuda);
  return result;
}

Napi::Value oversubscribes(const Napi::CallbackInfo& call) {
  const int64_t cores = Argument(call[0], "cores").integer(1, kMaxInt32);
  return Napi::Boolean::New(call.Env(), EngineThreads::first_above(static_cast<int>(cores)));
}

Napi::Value set_error_class(const Napi::CallbackInfo& call) {
  Environment::of(call.Env()).error_class = Napi::Persistent(Argument(call[0], "errorClass").function());
  return call.Env().Undefined();
}

Napi::Array codes(Napi::Env env) {
  Napi::Array names = Napi::Array::New(env);
  uint32_t count = 0;
#define GAVEL_CODE(name) \
  if (Code::name != Code::ok) names.Set(count++, code_name(Code::name));
  GAVEL_CODES(GAVEL_CODE)
#undef GAVEL_CODE
  return names;
}

// Node unloads an addon with the last worker that loaded it, but the worker pool's threads never end.
void stay_loaded() {
  Dl_info self{};
  if (dladdr(reinterpret_cast<void*>(&stay_loaded), &self) != 0 && self.dli_fname != nullptr) {
    dlopen(self.dli_fname, RTLD_NOW | RTLD_NODELETE | RTLD_NOLOAD);
  }
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  stay_loaded();
  env.SetInstanceData(new Environment);
  Environment::of(env).pool.set_threads(static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  NativeEngine::define(env);
  NativeModel::define(env);
  const std::string id = build_id();
  exports.Set("version", id.substr(0, id.rfind('-')));
  exports.Set("buildId", id);
  exports.Set("codes", codes(env));
  exports.Set("info", Napi::Function::New<info>(env, "info"));
  exports.Set("oversubscribes", Napi::Function::New<oversubscribes>(env, "oversubscribes"));
  exports.Set("setErrorClass", Napi::Function::New<set_error_class>(env, "setErrorClass"));
  exports.Set("createEngine", Napi::Function::New<&NativeEngine::create>(env, "createEngine"));
  exports.Set("kernels", define_kernels(env));
  return exports;
}

}  // namespace
}  // namespace gavel

static Napi::Object InitGavel(Napi::Env env, Napi::Object exports) { return gavel::initialize(env, exports); }

NODE_API_MODULE(gavel, InitGavel)
