// Scores of one packed batch on a tape: the rows of its reward tokens through every head, and the way back. Job thread
// only.
#pragma once
#include <algorithm>
#include <vector>

#include "model/model.h"
#include "model/pack.h"
#include "ops/builders.h"

namespace gavel {

inline std::vector<float> values_of(const TensorMemory& memory, const Tensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.shape.count()));
  memory.download(values.data(), tensor.data, values.size() * sizeof(float));
  return values;
}

struct ScoreGraph {
  Tensor states;                // [S, hidden]
  std::vector<Tensor> outputs;  // [S, 2] by head

  static ScoreGraph build(Tape& tape, const Model& model, Tensor hidden, const Pack& pack) {
    ScoreGraph graph;
    const std::vector<int32_t>& rows = pack.reward_rows();
    if (rows.empty()) return graph;
    graph.states = gather_rows(tape, hidden, rows, DType::f32);
    for (int32_t h = 0; h < model.reward_head().count(); ++h)
      graph.outputs.push_back(model.reward_head().forward(tape, model.weights(), graph.states, h));
    return graph;
  }
  // What every head made, [S, 2] each.
  std::vector<std::vector<float>> values(const Tape& tape) const {
    std::vector<std::vector<float>> all;
    for (const Tensor& output : outputs) all.push_back(values_of(tape.memory(), output));
    return all;
  }
  // Of them, column 0 is mu, 1 log sigma; [S, H].
  template <class Real>
  static std::vector<Real> column(const std::vector<std::vector<float>>& values, size_t which) {
    std::vector<Real> chosen;
    for (size_t at = which; at < (values.empty() ? 0 : values.front().size()); at += 2) {
      for (const std::vector<float>& head : values) chosen.push_back(static_cast<Real>(head[at]));
    }
    return chosen;
  }
  bool requires_grad(const Tape& tape) const {
    return std::any_of(outputs.begin(), outputs.end(),
                       [&](const Tensor& output) { return tape.requires_grad(output.id); });
  }
  // Gives every head its gradient; `fills` is false where nothing is computed.
  void seed(Tape& tape, const std::vector<double>& grad_mu, const std::vector<double>& grad_log_sigma,
            bool fills) const {
    for (size_t h = 0; h < outputs.size(); ++h) {
      if (!tape.requires_grad(outputs[h].id)) continue;
      const Tensor grad = tape.seed(outputs[h]);
      if (!fills) continue;
      std::vector<float> pairs;
      for (size_t at = h; at < grad_mu.size(); at += outputs.size()) {
        pairs.push_back(static_cast<float>(grad_mu[at]));
        pairs.push_back(static_cast<float>(grad_log_sigma[at]));
      }
      tape.memory().upload(grad.data, pairs.data(), pairs.size() * sizeof(float));
    }
  }
};

}  // namespace gavel
