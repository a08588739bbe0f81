#include "addon/outputs.h"

#include <cstring>
#include <memory>
#include <utility>

namespace gavel {
namespace {

constexpr size_t kHandOverBytes = size_t{1} << 20;

template <class Array, class Element>
Napi::Value copied(Napi::Env env, const std::vector<Element>& values) {
  Array array = Array::New(env, values.size());
  if (!values.empty()) std::memcpy(array.Data(), values.data(), values.size() * sizeof(Element));
  return array;
}

Napi::Value number(Napi::Env env, double value) { return Napi::Number::New(env, value); }

Napi::Value reuse_to_js(Napi::Env env, const ReuseStats& reused) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("promptTokens", number(env, static_cast<double>(reused.prompt_tokens)));
  object.Set("images", number(env, static_cast<double>(reused.images)));
  return object;
}

}  // namespace

Napi::Value floats_to_js(Napi::Env env, std::vector<float>&& values) {
  const size_t size = values.size() * sizeof(float);
  if (size >= kHandOverBytes) {
    auto owner = std::make_unique<std::vector<float>>(std::move(values));
    napi_value buffer = nullptr;
    const napi_status status = napi_create_external_arraybuffer(
        env, owner->data(), size, [](napi_env, void*, void* hint) { delete static_cast<std::vector<float>*>(hint); },
        owner.get(), &buffer);
    if (status == napi_ok) {
      const size_t count = owner.release()->size();
      return Napi::Float32Array::New(env, count, Napi::ArrayBuffer(env, buffer), 0);
    }
    values = std::move(*owner);
  }
  return copied<Napi::Float32Array>(env, values);
}

Napi::Value doubles_to_js(Napi::Env env, const std::vector<double>& values) {
  return copied<Napi::Float64Array>(env, values);
}

Napi::Value ints_to_js(Napi::Env env, const std::vector<int32_t>& values) {
  return copied<Napi::Int32Array>(env, values);
}

Napi::Value numbers_to_js(Napi::Env env, const std::map<std::string, double>& numbers) {
  Napi::Object object = Napi::Object::New(env);
  for (const auto& [name, value] : numbers) object.Set(name, value);
  return object;
}

Napi::Value completions_to_js(Napi::Env env, std::vector<Completion>& completions) {
  Napi::Array array = Napi::Array::New(env, completions.size());
  for (size_t i = 0; i < completions.size(); ++i) {
    Completion& completion = completions[i];
    Napi::Object object = Napi::Object::New(env);
    object.Set("request", number(env, completion.request));
    object.Set("sample", number(env, completion.sample));
    object.Set("tokens", ints_to_js(env, completion.tokens));
    object.Set("logprobs", floats_to_js(env, std::move(completion.logprobs)));
    object.Set("logKeptMass", floats_to_js(env, std::move(completion.log_kept_mass)));
    object.Set("finishReason", Napi::String::New(env, completion.stopped ? "stop" : "length"));
    array.Set(static_cast<uint32_t>(i), object);
  }
  return array;
}

Napi::Value sample_stats_to_js(Napi::Env env, const SampleStats& stats) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("completions", number(env, static_cast<double>(stats.completions)));
  object.Set("completionTokens", number(env, static_cast<double>(stats.completion_tokens)));
  object.Set("promptTokens", number(env, static_cast<double>(stats.prompt_tokens)));
  object.Set("decodeSteps", number(env, static_cast<double>(stats.decode_steps)));
  object.Set("prefillSeconds", number(env, stats.prefill_seconds));
  object.Set("decodeSeconds", number(env, stats.decode_seconds));
  object.Set("tailSeconds", number(env, stats.tail_seconds));
  object.Set("kvBytes", number(env, static_cast<double>(stats.kv_bytes)));
  object.Set("reused", reuse_to_js(env, stats.reused));
  return object;
}

Napi::Value step_result_to_js(Napi::Env env, StepResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("loss", number(env, result.loss));
  object.Set("completionTokens", number(env, static_cast<double>(result.completion_tokens)));
  object.Set("packedTokens", number(env, static_cast<double>(result.packed_tokens)));
  object.Set("microBatches", number(env, static_cast<double>(result.micro_batches)));
  object.Set("metrics", numbers_to_js(env, result.metrics));
  object.Set("reused", reuse_to_js(env, result.reused));
  object.Set("logprobs", floats_to_js(env, std::move(result.logprobs)));
  return object;
}

Napi::Value scores_to_js(Napi::Env env, ScoreResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("heads", number(env, result.heads));
  object.Set("count", number(env, static_cast<double>(result.count)));
  object.Set("mu", floats_to_js(env, std::move(result.mu)));
  object.Set("logSigma", floats_to_js(env, std::move(result.log_sigma)));
  object.Set("states", floats_to_js(env, std::move(result.states)));
  object.Set("reused", reuse_to_js(env, result.reused));
  return object;
}

Napi::Value logprobs_to_js(Napi::Env env, StepResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("logprobs", floats_to_js(env, std::move(result.logprobs)));
  object.Set("entropies", floats_to_js(env, std::move(result.entropies)));
  object.Set("reused", reuse_to_js(env, result.reused));
  return object;
}

Napi::Value optimizer_result_to_js(Napi::Env env, const OptimizerResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("gradNorm", number(env, result.grad_norm));
  object.Set("applied", Napi::Boolean::New(env, result.applied));
  object.Set("step", number(env, static_cast<double>(result.step)));
  return object;
}

}  // namespace gavel
