#include "model/projection.h"

#include "ops/builders.h"

namespace gavel {

Tensor projection(Tape& tape, const Weights& weights, Tensor x, int32_t matrix, int32_t bias, Tensor residual) {
  const Tensor y = linear(tape, x, weights[matrix], bias < 0 ? Tensor{} : weights[bias], residual);
  const Parameter& parameter = weights.parameter(matrix);
  const Adapter& adapter = weights.adapter();
  if (parameter.lora_up < 0 || !adapter.on) return y;
  // A x, scaled, is rounded once; B adds onto y, so that B = 0 leaves every bit of it.
  if (adapter.active_dropout > 0) {
    const uint64_t site = uint64_t{adapter.step} << 32 | static_cast<uint32_t>(matrix);
    x = dropout(tape, x, nullptr, {adapter.active_dropout, adapter.seed, site, adapter.first_row});
  }
  const Tensor u = dropout(tape, linear(tape, x, weights[parameter.lora_down]), parameter.lora_scale.data());
  return linear_onto(tape, u, weights[parameter.lora_up], y);
}

Tensor token_embedding(Tape& tape, const Weights& weights, int32_t table, const int32_t* tokens, int64_t count,
                       Tensor features, const int32_t* feature_rows, const int32_t* sources) {
  const Adapter& adapter = weights.adapter();
  if (adapter.token_rows < 0 || !adapter.on)
    return embedding(tape, weights[table], tokens, count, features, feature_rows, sources);
  return embedding(tape, weights[table], tokens, count, features, feature_rows, sources, weights[adapter.token_rows],
                   adapter.row_of_token.data());
}

}  // namespace gavel
