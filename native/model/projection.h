// The linear layer of a family file: y = x W^T (+ bias) (+ residual) for a matrix of the model, with its low-rank
// adapter (Hu et al. 2021, unmerged) when it has one and adapters are on.
#pragma once
#include "model/weights.h"
#include "ops/tape.h"

namespace gavel {

// `matrix` and `bias` are indices of parameters; bias -1 is none.
Tensor projection(Tape& tape, const Weights& weights, Tensor x, int32_t matrix, int32_t bias = -1,
                  Tensor residual = {});

// Rows of the parameter `table`, or of `features` where feature_rows says so; single trainable rows of an adapter get
// their gradient.
Tensor token_embedding(Tape& tape, const Weights& weights, int32_t table, const int32_t* tokens, int64_t count,
                       Tensor features, const int32_t* feature_rows, const int32_t* sources);

}  // namespace gavel
