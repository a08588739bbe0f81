// A reward head: H perceptrons (hidden -> sizes ... -> 2, ReLU) over the hidden state of the reward token after the
// final norm, each giving (mu, log sigma). Its weights are fp32 whatever the model's dtype, and otherwise parameters
// like all others. Job thread only.
#pragma once
#include <cstdint>
#include <vector>

#include "core/status.h"
#include "model/weights.h"
#include "ops/tape.h"

namespace gavel {

struct RewardHeadOptions {
  int32_t heads = 1;
  int32_t token = -1;                           // the reward token, a row of the embedding
  std::vector<int32_t> hidden_sizes{1024, 16};  // between the model's hidden size and 2
  uint64_t seed = 0;                            // of the first weights
};

struct RewardHead {
  struct Layer {
    int32_t weight = -1, bias = -1;  // indices of parameters
  };
  std::vector<std::vector<Layer>> heads;

  bool attached() const { return !heads.empty(); }
  int32_t count() const { return static_cast<int32_t>(heads.size()); }
  // [S, 2] of head h, columns mu and log sigma; states are [S, hidden] in fp32.
  Tensor forward(Tape& tape, const Weights& weights, Tensor states, int32_t head) const;
};

// Declares, allocates and fills the weights `reward_head.<h>.<2 l>.weight|bias`: U(-1/sqrt(K), 1/sqrt(K)) as
// torch.nn.Linear draws them, but in the last layer the biases and the row of log sigma are 0, so that sigma starts at
// 1 and mu near 0. Errors: invalid_argument (a second head, sizes), out_of_memory.
Status attach_reward_head(Weights& weights, int32_t hidden_size, const RewardHeadOptions& options, RewardHead* head);

// Rows of the embedding, and of an untied head, from `first_row` on become the mean of those before it.
Status fill_new_token_rows(Weights& weights, int64_t first_row);

}  // namespace gavel
