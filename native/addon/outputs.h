// Results as the contract's JavaScript values. Large arrays hand their memory over instead of being copied, where the
// runtime allows it.
#pragma once
#include <napi.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "sample/sampler.h"
#include "train/trainer.h"

namespace gavel {

Napi::Value floats_to_js(Napi::Env env, std::vector<float>&& values);
Napi::Value doubles_to_js(Napi::Env env, const std::vector<double>& values);
Napi::Value ints_to_js(Napi::Env env, const std::vector<int32_t>& values);
Napi::Value numbers_to_js(Napi::Env env, const std::map<std::string, double>& numbers);
Napi::Value completions_to_js(Napi::Env env, std::vector<Completion>& completions);
Napi::Value sample_stats_to_js(Napi::Env env, const SampleStats& stats);
Napi::Value step_result_to_js(Napi::Env env, StepResult& result);
Napi::Value scores_to_js(Napi::Env env, ScoreResult& result);
Napi::Value logprobs_to_js(Napi::Env env, StepResult& result);
Napi::Value optimizer_result_to_js(Napi::Env env, const OptimizerResult& result);

}  // namespace gavel
