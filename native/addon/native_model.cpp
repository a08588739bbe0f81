#include "addon/native_model.h"

#include <algorithm>
#include <utility>

#include "addon/arguments.h"
#include "addon/environment.h"
#include "addon/inputs.h"
#include "addon/memory_plan.h"
#include "addon/outputs.h"
#include "addon/ranking_inputs.h"
#include "model/tensor_file.h"

namespace gavel {
namespace {

constexpr napi_type_tag kModelTag = {0x6a3f9c1d5b8e4702u, 0x91d7c25e80ab46f3u};

struct Nothing {};

Napi::Array shape_to_js(Napi::Env env, const Shape& shape) {
  Napi::Array array = Napi::Array::New(env, static_cast<size_t>(shape.rank));
  for (int32_t axis = 0; axis < shape.rank; ++axis)
    array.Set(static_cast<uint32_t>(axis), static_cast<double>(shape[axis]));
  return array;
}

Napi::Value memory_to_js(Napi::Env env, const ModelMemory& memory, size_t scratch_bytes) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("weightBytes", static_cast<double>(memory.weight_bytes));
  object.Set("gradientBytes", static_cast<double>(memory.gradient_bytes));
  object.Set("optimizerBytes", static_cast<double>(memory.optimizer_bytes));
  object.Set("activationBytes", static_cast<double>(memory.activation_bytes));
  object.Set("kvBytes", static_cast<double>(memory.kv_bytes));
  object.Set("samplingBytes", static_cast<double>(memory.sampling_bytes));
  object.Set("promptCacheBytes", static_cast<double>(memory.prompt_cache_bytes));
  object.Set("scratchBytes", static_cast<double>(scratch_bytes));
  return object;
}

Napi::Value undefined(Napi::Env env, Nothing&) { return env.Undefined(); }

Status disposed_status() {
  return Status::error(Code::disposed,
                       "Expected a live model but this one, or its engine, was disposed. Load or create another.");
}

RunOptions numbered(const Argument& job, const void* owner) {
  RunOptions options;
  if (!job.absent()) options.number = job.counter();
  options.owner = owner;
  return options;
}

Status check_group_pixels(const std::vector<GroupInput>& groups) {
  for (const GroupInput& group : groups) GAVEL_RETURN_IF_ERROR(check_pixels(group.images));
  return Status::success();
}

}  // namespace

void NativeModel::define(Napi::Env env) {
  Environment::of(env).model_class =
      Napi::Persistent(DefineClass(env, "NativeModel",
                                   {
                                       InstanceAccessor<&NativeModel::family>("family"),
                                       InstanceMethod<&NativeModel::tensors>("tensors"),
                                       InstanceMethod<&NativeModel::set_trainable>("setTrainable"),
                                       InstanceMethod<&NativeModel::state_tensors>("stateTensors"),
                                       InstanceMethod<&NativeModel::reset_optimizer>("resetOptimizer"),
                                       InstanceMethod<&NativeModel::attach_adapter>("attachAdapter"),
                                       InstanceMethod<&NativeModel::attach_reward_head>("attachRewardHead"),
                                       InstanceMethod<&NativeModel::fill_new_token_rows>("fillNewTokenRows"),
                                       InstanceMethod<&NativeModel::score>("score"),
                                       InstanceMethod<&NativeModel::initialize>("initialize"),
                                       InstanceMethod<&NativeModel::load_tensors>("loadTensors"),
                                       InstanceMethod<&NativeModel::save_tensors>("saveTensors"),
                                       InstanceMethod<&NativeModel::read_tensor>("readTensor"),
                                       InstanceMethod<&NativeModel::write_tensor>("writeTensor"),
                                       InstanceMethod<&NativeModel::copy_weights_from>("copyWeightsFrom"),
                                       InstanceMethod<&NativeModel::sample>("sample"),
                                       InstanceMethod<&NativeModel::logprobs>("logprobs"),
                                       InstanceMethod<&NativeModel::logits>("logits"),
                                       InstanceMethod<&NativeModel::forward_backward>("forwardBackward"),
                                       InstanceMethod<&NativeModel::optimizer_step>("optimizerStep"),
                                       InstanceMethod<&NativeModel::zero_gradients>("zeroGradients"),
                                       InstanceMethod<&NativeModel::optimizer_step_count>("optimizerStepCount"),
                                       InstanceMethod<&NativeModel::set_optimizer_step_count>("setOptimizerStepCount"),
                                       InstanceMethod<&NativeModel::memory>("memory"),
                                       InstanceMethod<&NativeModel::plan_memory>("planMemory"),
                                       InstanceMethod<&NativeModel::dispose>("dispose"),
                                   }));
}

Napi::Object NativeModel::create(Napi::Env env, Napi::Object engine, std::shared_ptr<Bridge> bridge,
                                 std::shared_ptr<ModelHost> host) {
  Environment& environment = Environment::of(env);
  environment.constructing = true;
  Napi::Object object = environment.model_class.New({});
  NativeModel* model = Unwrap(object);
  model->engine_ = Napi::Persistent(engine);
  model->bridge_ = std::move(bridge);
  model->host_ = std::move(host);
  return object;
}

NativeModel* NativeModel::from(Napi::Value value) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kModelTag)) return nullptr;
  return Unwrap(value.As<Napi::Object>());
}

NativeModel::NativeModel(const Napi::CallbackInfo& info) : Napi::ObjectWrap<NativeModel>(info) {
  if (!std::exchange(Environment::of(info.Env()).constructing, false)) {
    throw_status(info.Env(),
                 Status::error(Code::invalid_argument,
                               "Expected engine.createModel() to make a model. Call it instead of the constructor."));
  }
  info.This().As<Napi::Object>().TypeTag(&kModelTag);
}

// The net under a model nobody disposed: its memory goes when its last job is done.
NativeModel::~NativeModel() {
  if (!host_ || host_->disposed || bridge_->disposed()) return;
  bridge_->run_unwatched([host = host_](const Job&) {
    host->release();
    return Status::success();
  });
}

ModelHost& NativeModel::live(Napi::Env env) const {
  if (host_->disposed || bridge_->disposed()) throw_status(env, disposed_status());
  return *host_;
}

template <class Result, class Work, class Convert>
Napi::Value NativeModel::run(const Napi::CallbackInfo& info, RunOptions options, Work work, Convert convert) {
  live(info.Env());
  options.owner = host_.get();
  return bridge_->run<Result>(
      info.Env(), info.This().As<Napi::Object>(), options,
      [host = host_, work = std::move(work)](const Job& job, Result* result) mutable -> Status {
        // A job queued before dispose() was called and not aborted in time meets no model.
        if (!host->model) return disposed_status();
        Status status = work(job, *host, result);
        host->take_snapshot();
        return status;
      },
      std::move(convert));
}

template <class Work>
Napi::Value NativeModel::run(const Napi::CallbackInfo& info, Work work) {
  return run(info, RunOptions{}, std::move(work));
}

template <class Work>
Napi::Value NativeModel::run(const Napi::CallbackInfo& info, RunOptions options, Work work) {
  return run<Nothing>(
      info, options,
      [work = std::move(work)](const Job& job, ModelHost& host, Nothing*) mutable -> Status { return work(job, host); },
      undefined);
}

Napi::Value NativeModel::family(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), host_->family); }

Napi::Value NativeModel::tensors(const Napi::CallbackInfo& info) {
  constexpr const char* kKinds[] = {"matrix", "vector", "norm", "bias", "embedding"};
  const ModelHost& host = live(info.Env());
  Napi::Array array = Napi::Array::New(info.Env(), host.tensors.size());
  for (size_t i = 0; i < host.tensors.size(); ++i) {
    const TensorRow& row = host.tensors[i];
    Napi::Object object = Napi::Object::New(info.Env());
    object.Set("name", row.name);
    object.Set("shape", shape_to_js(info.Env(), row.shape));
    object.Set("trainable", row.trainable);
    object.Set("adapter", row.adapter);
    object.Set("rewardHead", row.reward_head);
    object.Set("kind", kKinds[static_cast<size_t>(row.kind)]);
    array.Set(static_cast<uint32_t>(i), object);
  }
  return array;
}

Napi::Value NativeModel::state_tensors(const Napi::CallbackInfo& info) {
  const ModelHost& host = live(info.Env());
  Napi::Array array = Napi::Array::New(info.Env());
  for (const TensorRow& row : host.tensors) {
    if (!row.trainable) continue;
    const auto add = [&](const char* kind, const char* dtype, const Shape& shape) {
      Napi::Object object = Napi::Object::New(info.Env());
      object.Set("name", row.name);
      object.Set("kind", kind);
      object.Set("dtype", dtype);
      object.Set("shape", shape_to_js(info.Env(), shape));
      array.Set(array.Length(), object);
    };
    if (row.dtype == DType::bf16 && host.state.masters) add("master", "F32", row.shape);
    if (host.state.moments == DType::u8) {
      add("codes1", "U8", row.shape);
      add("codes2", "U8", row.shape);
      if (row.state_blocks == 0) continue;
      add("scales1", "F32", {row.state_blocks});
      add("scales2", "F32", {row.state_blocks});
    } else {
      const char* dtype = host.state.moments == DType::bf16 ? "BF16" : "F32";
      add("moment1", dtype, row.shape);
      add("moment2", dtype, row.shape);
    }
  }
  return array;
}

Napi::Value NativeModel::reset_optimizer(const Napi::CallbackInfo& info) {
  return run(info, [](const Job&, ModelHost& host) {
    host.model->weights().zero_gradients();
    host.model->weights().zero_moments();
    host.trainer->set_step_count(0);
    return Status::success();
  });
}

Napi::Value NativeModel::set_trainable(const Napi::CallbackInfo& info) {
  ModelHost& host = live(info.Env());
  const Argument argument(info[0], "names");
  std::vector<std::string> names = texts_from(argument);
  std::vector<bool> wanted(host.tensors.size());
  for (size_t n = 0; n < names.size(); ++n) {
    size_t row = 0;
    while (row < host.tensors.size() && host.tensors[row].name != names[n]) ++row;
    if (row == host.tensors.size()) argument[static_cast<uint32_t>(n)].fail("the name of a tensor of this model");
    wanted[static_cast<size_t>(host.tensors[row].parameter)] = true;
  }
  for (TensorRow& row : host.tensors) row.trainable = wanted[static_cast<size_t>(row.parameter)];
  bridge_->run_unwatched([host = host_, names = std::move(names)](const Job&) {
    if (host->model) host->model->weights().set_trainable(names);
    return Status::success();
  });
  return info.Env().Undefined();
}

Napi::Value NativeModel::attach_adapter(const Napi::CallbackInfo& info) {
  AdapterOptions options = adapter_options_from({info[0], "options"});
  return run<std::vector<TensorRow>>(
      info, {},
      [options = std::move(options)](const Job&, ModelHost& host, std::vector<TensorRow>* rows) {
        host.model->prompt_cache().drop_all();
        GAVEL_RETURN_IF_ERROR(gavel::attach_adapter(host.model->weights(), options));
        *rows = tensor_rows(host.model->weights());
        return Status::success();
      },
      [host = host_](Napi::Env env, std::vector<TensorRow>& rows) {
        host->tensors = std::move(rows);
        return env.Undefined();
      });
}

Napi::Value NativeModel::attach_reward_head(const Napi::CallbackInfo& info) {
  RewardHeadOptions options = reward_head_options_from({info[0], "options"});
  return run<std::vector<TensorRow>>(
      info, {},
      [options = std::move(options)](const Job&, ModelHost& host, std::vector<TensorRow>* rows) {
        GAVEL_RETURN_IF_ERROR(host.model->attach_reward_head(options));
        *rows = tensor_rows(host.model->weights());
        return Status::success();
      },
      [host = host_](Napi::Env env, std::vector<TensorRow>& rows) {
        host->tensors = std::move(rows);
        return env.Undefined();
      });
}

Napi::Value NativeModel::fill_new_token_rows(const Napi::CallbackInfo& info) {
  const int64_t first = Argument(info[0], "firstRow").integer(1, kMaxInt32);
  return run(info, [first](const Job&, ModelHost& host) {
    host.model->prompt_cache().drop_all();
    return gavel::fill_new_token_rows(host.model->weights(), first);
  });
}

Napi::Value NativeModel::score(const Napi::CallbackInfo& info) {
  std::vector<GroupInput> groups = groups_from({info[0], "groups"}, true);
  const Argument options(info[1], "options");
  const StepOptions step = step_options_from(options);
  const bool states = options["states"].boolean();
  return run<ScoreResult>(
      info, numbered({info[2], "job"}, host_.get()),
      [groups = std::move(groups), step, states](const Job& job, ModelHost& host, ScoreResult* result) -> Status {
        GAVEL_RETURN_IF_ERROR(check_group_pixels(groups));
        return host.trainer->score(groups, step, states, job.aborted, result);
      },
      scores_to_js);
}

Napi::Value NativeModel::initialize(const Napi::CallbackInfo& info) {
  const uint64_t seed = Argument(info[0], "seed").counter();
  const double std = Argument(info[1], "std").number(0, 1e6);
  return run(info, [seed, std](const Job&, ModelHost& host) {
    host.model->prompt_cache().drop_all();
    host.model->weights().initialize(seed, std);
    return Status::success();
  });
}

Napi::Value NativeModel::load_tensors(const Napi::CallbackInfo& info) {
  std::vector<TensorRead> reads = tensor_reads_from({info[0], "sources"});
  return run(info, numbered({info[1], "job"}, host_.get()),
             [bridge = bridge_.get(), reads = std::move(reads)](const Job& job, ModelHost& host) {
               host.model->prompt_cache().drop_all();
               Status status = gavel::load_tensors(host.model->weights(), *bridge->context().pool, reads, job.aborted);
               refresh_token_rows(host.model->weights());
               return status;
             });
}

Napi::Value NativeModel::save_tensors(const Napi::CallbackInfo& info) {
  std::string path = Argument(info[0], "path").text();
  std::vector<uint8_t> header = Argument(info[1], "header").uint8s();
  std::vector<TensorWrite> writes = tensor_writes_from({info[2], "sinks"});
  return run(info, numbered({info[3], "job"}, host_.get()),
             [bridge = bridge_.get(), path = std::move(path), header = std::move(header), writes = std::move(writes)](
                 const Job& job, ModelHost& host) {
               return gavel::save_tensors(host.model->weights(), *bridge->context().pool, path, header, writes,
                                          job.aborted);
             });
}

Napi::Value NativeModel::read_tensor(const Napi::CallbackInfo& info) {
  std::string name = Argument(info[0], "name").text();
  const TensorKind kind = tensor_kind_from({info[1], "kind"});
  return run<std::vector<float>>(
      info, {},
      [name = std::move(name), kind](const Job&, ModelHost& host, std::vector<float>* values) {
        return host.model->weights().read(name, kind, values);
      },
      [](Napi::Env env, std::vector<float>& values) { return floats_to_js(env, std::move(values)); });
}

Napi::Value NativeModel::write_tensor(const Napi::CallbackInfo& info) {
  std::string name = Argument(info[0], "name").text();
  const TensorKind kind = tensor_kind_from({info[1], "kind"});
  std::vector<float> values = Argument(info[2], "data").float32s();
  return run(info, [name = std::move(name), kind, values = std::move(values)](const Job&, ModelHost& host) {
    host.model->prompt_cache().drop_all();
    return host.model->weights().write(name, kind, values.data(), values.size());
  });
}

Napi::Value NativeModel::copy_weights_from(const Napi::CallbackInfo& info) {
  live(info.Env());
  const Argument argument(info[0], "other");
  const NativeModel* other = from(argument.value());
  if (other == nullptr || other->bridge_ != bridge_) argument.fail("a model of the same engine");
  other->live(info.Env());
  return run(info, [from = other->host_](const Job&, ModelHost& host) {
    if (!from->model) return disposed_status();
    host.model->prompt_cache().drop_all();
    return host.model->weights().copy_from(from->model->weights());
  });
}

Napi::Value NativeModel::sample(const Napi::CallbackInfo& info) {
  std::vector<SampleRequest> requests = sample_requests_from({info[0], "requests"});
  SampleSettings settings = sample_settings_from({info[1], "options"});
  RunOptions options = numbered({info[3], "job"}, host_.get());
  options.on_completions = Argument(info[2], "onCompletions").function();
  return run<SampleStats>(
      info, options,
      [bridge = bridge_.get(), requests = std::move(requests), settings = std::move(settings)](
          const Job& job, ModelHost& host, SampleStats* stats) -> Status {
        for (const SampleRequest& request : requests) GAVEL_RETURN_IF_ERROR(check_pixels(request.images));
        const auto on_finished = [bridge, ticket = job.ticket](std::vector<Completion> completions) {
          bridge->post_completions(ticket, std::move(completions));
        };
        Status status = host.sampler->run(requests, settings, job.aborted, on_finished, stats);
        host.kv_bytes = stats->kv_bytes;
        host.sampling_bytes = stats->buffer_bytes + stats->activation_bytes;
        return status;
      },
      [](Napi::Env env, SampleStats& stats) { return sample_stats_to_js(env, stats); });
}

Napi::Value NativeModel::logprobs(const Napi::CallbackInfo& info) {
  std::vector<GroupInput> groups = groups_from({info[0], "groups"});
  const StepOptions step = step_options_from({info[1], "options"});
  return run<StepResult>(
      info, numbered({info[2], "job"}, host_.get()),
      [groups = std::move(groups), step](const Job& job, ModelHost& host, StepResult* result) -> Status {
        GAVEL_RETURN_IF_ERROR(check_group_pixels(groups));
        return host.trainer->logprobs(groups, step, job.aborted, result);
      },
      logprobs_to_js);
}

Napi::Value NativeModel::logits(const Napi::CallbackInfo& info) {
  GroupInput group = group_from({info[0], "group"});
  const bool adapter_off = Argument(info[1], "adapter").choice({"on", "off"}) == 1;
  return run<std::vector<float>>(
      info, numbered({info[2], "job"}, host_.get()),
      [group = std::move(group), adapter_off](const Job& job, ModelHost& host, std::vector<float>* values) -> Status {
        GAVEL_RETURN_IF_ERROR(check_pixels(group.images));
        return host.trainer->logits(group, adapter_off, job.aborted, values);
      },
      [](Napi::Env env, std::vector<float>& values) { return floats_to_js(env, std::move(values)); });
}

Napi::Value NativeModel::forward_backward(const Napi::CallbackInfo& info) {
  std::vector<Objective> objectives = objectives_from({info[1], "objectives"});
  const bool ranks = std::any_of(objectives.begin(), objectives.end(), [](const Objective& objective) {
    return objective.kind == Objective::Kind::ranking && objective.weight != 0;
  });
  std::vector<GroupInput> groups = groups_from({info[0], "groups"}, ranks);
  const StepOptions step = step_options_from({info[2], "options"});
  return run<StepResult>(
      info, numbered({info[3], "job"}, host_.get()),
      [groups = std::move(groups), objectives = std::move(objectives), step](const Job& job, ModelHost& host,
                                                                             StepResult* result) -> Status {
        GAVEL_RETURN_IF_ERROR(check_group_pixels(groups));
        return host.trainer->forward_backward(groups, objectives, step, job.aborted, result);
      },
      step_result_to_js);
}

Napi::Value NativeModel::optimizer_step(const Napi::CallbackInfo& info) {
  const OptimizerOptions options = optimizer_options_from({info[0], "options"});
  return run<OptimizerResult>(
      info, numbered({info[1], "job"}, host_.get()),
      [options](const Job& job, ModelHost& host, OptimizerResult* result) {
        if (job.aborted.load()) return Status::error(Code::aborted, "The step was aborted before it began.");
        return host.trainer->optimizer_step(options, result);
      },
      [](Napi::Env env, OptimizerResult& result) { return optimizer_result_to_js(env, result); });
}

Napi::Value NativeModel::zero_gradients(const Napi::CallbackInfo& info) {
  return run(info, [](const Job&, ModelHost& host) {
    host.model->weights().zero_gradients();
    return Status::success();
  });
}

Napi::Value NativeModel::optimizer_step_count(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(live(info.Env()).step_count.load()));
}

Napi::Value NativeModel::set_optimizer_step_count(const Napi::CallbackInfo& info) {
  ModelHost& host = live(info.Env());
  const int64_t step = static_cast<int64_t>(Argument(info[0], "step").counter());
  host.step_count.store(step);
  bridge_->run_unwatched([host = host_, step](const Job&) {
    if (host->model) {
      host->trainer->set_step_count(step);
      host->step_count.store(step);
    }
    return Status::success();
  });
  return info.Env().Undefined();
}

Napi::Value NativeModel::memory(const Napi::CallbackInfo& info) {
  return memory_to_js(info.Env(), live(info.Env()).memory(), bridge_->scratch_bytes());
}

Napi::Value NativeModel::plan_memory(const Napi::CallbackInfo& info) {
  PlannedWork work = planned_work_from({info[0], "work"});
  return run<MemoryPlan>(
      info, {},
      [bridge = bridge_.get(), work = std::move(work)](const Job&, ModelHost& host, MemoryPlan* plan) {
        return gavel::plan_memory(*host.model, bridge->context(), work, plan);
      },
      [](Napi::Env env, MemoryPlan& plan) { return memory_to_js(env, plan.held, plan.scratch_bytes); });
}

Napi::Value NativeModel::dispose(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (bridge_->disposed()) {
    Napi::Promise::Deferred deferred(env);
    deferred.Resolve(env.Undefined());
    return deferred.Promise();
  }
  host_->disposed = true;
  bridge_->abort_owner(host_.get());
  // Owned by nobody, so that a second dispose() does not abort the first; releasing twice is harmless.
  return bridge_->run<Nothing>(
      env, info.This().As<Napi::Object>(), {},
      [host = host_](const Job&, Nothing*) {
        host->release();
        return Status::success();
      },
      undefined);
}

}  // namespace gavel
