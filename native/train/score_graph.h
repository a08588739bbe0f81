// Scores of one packed batch on a tape: the rows of its reward tokens through every head, and the way back. Job thread
// only.
#pragma once
#include <algorithm>
#include <vector>

#include "model/model.h"
#include "model/pack.h"
#include "ops/builders.h"

namespace gavel {

struct ScoreGraph {
  Tensor states;                // [S, hidden]
  std::vector<Tensor> outputs;  // [S, 2] by head

  static ScoreGraph build(Tape& tape, const Model& model, Tensor hidden, const Pack& pack) {
    ScoreGraph graph;
    const std::vector<int32_t>& rows = pack.reward_rows();
    if (rows.empty()) return graph;
    graph.states = gather_rows(tape, hidden, rows.data(), static_cast<int64_t>(rows.size()));
    for (int32_t h = 0; h < model.reward_head().count(); ++h)
      graph.outputs.push_back(model.reward_head().forward(tape, model.weights(), graph.states, h));
    return graph;
  }
  // Column 0 is mu, 1 log sigma; [S, H].
  template <class Real>
  std::vector<Real> column(int32_t which) const {
    std::vector<Real> values;
    for (int64_t s = 0; s < (outputs.empty() ? 0 : outputs.front().rows()); ++s) {
      for (const Tensor& output : outputs) values.push_back(static_cast<Real>(output.f32()[2 * s + which]));
    }
    return values;
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
      for (int64_t s = 0; s < outputs[h].rows() && fills; ++s) {
        const size_t at = static_cast<size_t>(s) * outputs.size() + h;
        grad.f32()[2 * s] = static_cast<float>(grad_mu[at]);
        grad.f32()[2 * s + 1] = static_cast<float>(grad_log_sigma[at]);
      }
    }
  }
};

}  // namespace gavel
