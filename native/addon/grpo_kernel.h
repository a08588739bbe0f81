// kernels.grpoLoss of the contract: the objective's loss and gradient on given log-probs, in double.
#pragma once
#include <napi.h>

namespace gavel {

Napi::Value grpo_loss_kernel(const Napi::CallbackInfo& info);

}  // namespace gavel
