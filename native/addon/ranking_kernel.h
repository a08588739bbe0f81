// kernels.rankingLoss of the contract: the ranking objective's loss on given scores and its gradients, in double.
#pragma once
#include <napi.h>

namespace gavel {

Napi::Value ranking_loss_kernel(const Napi::CallbackInfo& info);

}  // namespace gavel
