// What a trained parameter keeps between steps, chosen when a model is made. Rounding is nearest where a master holds
// the exact value, stochastic where none does: never neither.
#pragma once
#include <cstdint>

#include "core/dtype.h"

namespace gavel {

struct TrainingState {
  DType moments = DType::f32;  // f32, bf16, or u8: block-wise codes with fp32 scales
  bool masters = true;         // of bf16 values, in fp32; without them updates are rounded stochastically
  uint64_t seed = 0;           // of stochastic rounding
};

}  // namespace gavel
