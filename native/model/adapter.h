// Low-rank adapters (LoRA, Hu et al. 2021), unmerged: y = W x + s B A x, s = alpha / r or alpha / sqrt(r) (rsLoRA,
// Kalajdzievski 2023). A fused matrix (q, k, v) has one A with the rows of all its adapted sources and one
// block-diagonal B. Also single trainable rows of a frozen embedding (a reward token): the table holds the row in use,
// so that a tied head sees it too. Turned off, the model is the base bit for bit: the reference policy of an adapter
// run. Job thread only.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/status.h"

namespace gavel {

class Weights;
struct HeadLogprob;

struct AdapterTarget {
  std::string name;  // source name of a matrix
  int32_t rank = 0;
  double scale = 1.0;
};

struct AdapterOptions {
  double dropout = 0;                  // of A's input, in forward_backward under nll objectives only
  uint64_t seed = 0;                   // of A's first values and of dropout
  std::vector<AdapterTarget> targets;  // none: trainable tokens alone
  std::vector<int32_t> tokens;         // rows of the embedding, ascending
};

// What one forward pass reads; the trainer fills `dropout`, `step` and `first_row` while it trains.
struct Adapter {
  bool attached = false, on = true;
  float dropout = 0.0f;
  uint64_t seed = 0;
  // Of the pass: 0 outside training.
  float active_dropout = 0.0f;
  uint32_t step = 0, first_row = 0;
  // Trainable rows of the embedding.
  std::vector<int32_t> tokens;
  int32_t token_rows = -1, embedding = -1;
  std::vector<int32_t> row_of_token;  // [V], -1 where a token has none; empty without tokens
  std::vector<float> base_rows;       // [n, H] of the table
};

// Adds the parameters, A ~ U(-1/sqrt(K), 1/sqrt(K)) as PEFT draws it, B = 0, and freezes all others. Errors:
// invalid_argument (a second adapter, an unknown or unsuitable target, a token out of range), out_of_memory.
Status attach_adapter(Weights& weights, const AdapterOptions& options);

// Off: projections stop at W and the embedding has its own rows again.
void set_adapter_on(Weights& weights, bool on);

// The adapter as one call wants it; afterwards it is on, without dropout.
class AdapterScope {
 public:
  AdapterScope(Weights& weights, bool on, float dropout = 0.0f, uint32_t step = 0);
  ~AdapterScope();
  AdapterScope(const AdapterScope&) = delete;
  AdapterScope& operator=(const AdapterScope&) = delete;

 private:
  Weights& weights_;
};

// After token rows changed (an optimizer step, a load): the table follows them.
void refresh_token_rows(Weights& weights);

// B is block-diagonal: what the product left outside its blocks is no gradient.
void mask_adapter_gradients(Weights& weights);

// Adds s B A to rows of a source of `matrix`, [rows, K] row-major fp32: the merged matrix.
void add_adapter_rows(const Weights& weights, int32_t matrix, int64_t row_begin, int64_t rows, float* values);

// The head's part of the gradient of token rows that stand in a tied head, after its backward.
void add_token_row_gradients(Weights& weights, const HeadLogprob& head);

}  // namespace gavel
