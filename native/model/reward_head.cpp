#include "model/reward_head.h"

#include <algorithm>
#include <cmath>

#include "core/philox.h"
#include "ops/builders.h"

namespace gavel {
namespace {

Status refuse(std::string message) { return Status::error(Code::invalid_argument, std::move(message)); }

constexpr int64_t kOutputs = 2;

void fill_layer(Weights& weights, int32_t index, uint64_t seed, double bound, bool last) {
  Parameter& parameter = weights.parameter(index);
  const SourceTensor& source = parameter.sources.front();
  const uint64_t item = hash_name(source.name);
  const int64_t rows = source.shape[0], cols = source.shape.count() / rows;
  const bool bias = source.shape.rank == 1;
  std::vector<float> values(static_cast<size_t>(rows * cols));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const float uniform = random_uniform({seed, item, static_cast<uint32_t>(r), static_cast<uint32_t>(c)});
      const bool zero = last && (bias || r == 1);
      values[static_cast<size_t>(r * cols + c)] = zero ? 0.0f : static_cast<float>(bound) * (2.0f * uniform - 1.0f);
    }
  }
  weights.write_rows(parameter, source, TensorKind::value, 0, rows, values.data());
}

}  // namespace

Tensor RewardHead::forward(Tape& tape, const Weights& weights, Tensor states, int32_t head) const {
  const std::vector<Layer>& layers = heads[static_cast<size_t>(head)];
  Tensor x = states;
  for (size_t i = 0; i < layers.size(); ++i) {
    if (i > 0) x = relu(tape, x);
    x = linear(tape, x, weights[layers[i].weight], weights[layers[i].bias]);
  }
  return x;
}

Status attach_reward_head(Weights& weights, int32_t hidden_size, const RewardHeadOptions& options, RewardHead* head) {
  if (head->attached())
    return refuse("Expected a model without a reward head but it has one. Load the model again without it.");
  std::vector<int64_t> widths{hidden_size};
  widths.insert(widths.end(), options.hidden_sizes.begin(), options.hidden_sizes.end());
  widths.push_back(kOutputs);
  RewardHead made;
  for (int32_t h = 0; h < options.heads; ++h) {
    std::vector<RewardHead::Layer> layers;
    for (size_t i = 0; i + 1 < widths.size(); ++i) {
      const std::string name = "reward_head." + std::to_string(h) + "." + std::to_string(2 * i);
      RewardHead::Layer layer;
      layer.weight =
          weights.add(name + ".weight", ParameterKind::matrix, {{name + ".weight", {widths[i + 1], widths[i]}}});
      layer.bias = weights.add(name + ".bias", ParameterKind::bias, {{name + ".bias", {widths[i + 1]}}});
      weights.parameter(layer.weight).reward_head = weights.parameter(layer.bias).reward_head = true;
      layers.push_back(layer);
    }
    made.heads.push_back(std::move(layers));
  }
  GAVEL_RETURN_IF_ERROR(weights.allocate(weights.dtype()));
  *head = std::move(made);
  if (weights.planning()) return Status::success();
  for (const auto& layers : head->heads) {
    for (size_t i = 0; i < layers.size(); ++i) {
      const double bound = 1.0 / std::sqrt(static_cast<double>(widths[i]));
      fill_layer(weights, layers[i].weight, options.seed, bound, i + 1 == layers.size());
      fill_layer(weights, layers[i].bias, options.seed, bound, i + 1 == layers.size());
    }
  }
  return weights.memory().finish();
}

Status fill_new_token_rows(Weights& weights, int64_t first_row) {
  for (int32_t i = 0; i < weights.size(); ++i) {
    Parameter& parameter = weights.parameter(i);
    if (parameter.name != "embedding" && parameter.name != "head") continue;
    const SourceTensor& source = parameter.sources.front();
    const int64_t rows = source.shape[0], cols = source.shape[1];
    if (first_row < 1 || first_row > rows) {
      return refuse("Expected between 1 and " + std::to_string(rows) + " rows before the new ones but received " +
                    std::to_string(first_row) + ".");
    }
    if (weights.planning()) continue;
    std::vector<double> sum(static_cast<size_t>(cols));
    std::vector<float> values(static_cast<size_t>(kPanel * cols));
    for (int64_t r = 0; r < first_row; r += kPanel) {
      const int64_t count = std::min(kPanel, first_row - r);
      weights.read_rows(parameter, source, TensorKind::value, r, count, values.data());
      for (int64_t i = 0; i < count * cols; ++i) sum[static_cast<size_t>(i % cols)] += values[static_cast<size_t>(i)];
    }
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(sum[i % sum.size()] / static_cast<double>(first_row));
    for (int64_t r = first_row; r < rows; r += kPanel)
      weights.write_rows(parameter, source, TensorKind::value, r, std::min(kPanel, rows - r), values.data());
  }
  return weights.memory().finish();
}

}  // namespace gavel
