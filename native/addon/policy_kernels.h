// kernels.grpoLoss and kernels.dpoLoss of the contract: the objectives' losses and gradients on given log-probs, in
// double.
#pragma once
#include <napi.h>

namespace gavel {

Napi::Value grpo_loss_kernel(const Napi::CallbackInfo& info);
Napi::Value dpo_loss_kernel(const Napi::CallbackInfo& info);

}  // namespace gavel
