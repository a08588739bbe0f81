// The NativeModel class of the contract: arguments checked and copied, one job queued, one promise returned. Keeps its
// engine alive. Made by the engine only.
#pragma once
#include <napi.h>

#include <memory>

#include "addon/bridge.h"
#include "addon/model_host.h"

namespace gavel {

class NativeModel : public Napi::ObjectWrap<NativeModel> {
 public:
  static void define(Napi::Env env);
  static Napi::Object create(Napi::Env env, Napi::Object engine, std::shared_ptr<Bridge> bridge,
                             std::shared_ptr<ModelHost> host);
  // Null when `value` is no NativeModel.
  static NativeModel* from(Napi::Value value);

  explicit NativeModel(const Napi::CallbackInfo& info);
  ~NativeModel() override;
  const std::shared_ptr<Bridge>& bridge() const { return bridge_; }
  const std::shared_ptr<ModelHost>& host() const { return host_; }

 private:
  Napi::Value family(const Napi::CallbackInfo& info);
  Napi::Value tensors(const Napi::CallbackInfo& info);
  Napi::Value set_trainable(const Napi::CallbackInfo& info);
  Napi::Value state_tensors(const Napi::CallbackInfo& info);
  Napi::Value reset_optimizer(const Napi::CallbackInfo& info);
  Napi::Value attach_adapter(const Napi::CallbackInfo& info);
  Napi::Value attach_reward_head(const Napi::CallbackInfo& info);
  Napi::Value fill_new_token_rows(const Napi::CallbackInfo& info);
  Napi::Value score(const Napi::CallbackInfo& info);
  Napi::Value initialize(const Napi::CallbackInfo& info);
  Napi::Value load_tensors(const Napi::CallbackInfo& info);
  Napi::Value save_tensors(const Napi::CallbackInfo& info);
  Napi::Value read_tensor(const Napi::CallbackInfo& info);
  Napi::Value write_tensor(const Napi::CallbackInfo& info);
  Napi::Value copy_weights_from(const Napi::CallbackInfo& info);
  Napi::Value sample(const Napi::CallbackInfo& info);
  Napi::Value logprobs(const Napi::CallbackInfo& info);
  Napi::Value logits(const Napi::CallbackInfo& info);
  Napi::Value forward_backward(const Napi::CallbackInfo& info);
  Napi::Value optimizer_step(const Napi::CallbackInfo& info);
  Napi::Value zero_gradients(const Napi::CallbackInfo& info);
  Napi::Value optimizer_step_count(const Napi::CallbackInfo& info);
  Napi::Value set_optimizer_step_count(const Napi::CallbackInfo& info);
  Napi::Value memory(const Napi::CallbackInfo& info);
  Napi::Value plan_memory(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);

  // Throws 'disposed' when the model or its engine was.
  ModelHost& live(Napi::Env env) const;
  // Work: Status(const Job&, ModelHost&, Result*).
  template <class Result, class Work, class Convert>
  Napi::Value run(const Napi::CallbackInfo& info, RunOptions options, Work work, Convert convert);
  template <class Work>
  Napi::Value run(const Napi::CallbackInfo& info, Work work);
  template <class Work>
  Napi::Value run(const Napi::CallbackInfo& info, RunOptions options, Work work);

  std::shared_ptr<Bridge> bridge_;
  std::shared_ptr<ModelHost> host_;
  Napi::ObjectReference engine_;
};

}  // namespace gavel
