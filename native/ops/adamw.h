// AdamW (Loshchilov and Hutter 2019) over one parameter, elementwise in the packed order; torch.optim.AdamW's
// arithmetic. With a master, the master moves and the value is its rounding.
#pragma once
#include "core/tensor.h"

namespace gavel {

struct AdamW {
  Tensor value;   // fp32 or bf16
  Tensor master;  // fp32, or absent when value is fp32
  const float* grad = nullptr;
  float* moment1 = nullptr;
  float* moment2 = nullptr;
  int64_t count = 0;
  double learning_rate = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  int64_t step = 1;         // from 1
  float grad_scale = 1.0f;  // of global clipping
};

}  // namespace gavel
