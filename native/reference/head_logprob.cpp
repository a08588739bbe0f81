// head_logprob by its definition, in double: log_softmax over the full vocabulary, its entropy, and their gradients.
// H = -sum p log p gives dH/dz_j = -p_j (log p_j + H).
#include <algorithm>
#include <cmath>
#include <vector>

#include "reference/kernels.h"

namespace gavel::reference {
namespace {

double load(const Tensor& tensor, int64_t index) {
  return tensor.dtype == DType::bf16 ? bf16_to_float(tensor.bf16()[index]) : tensor.f32()[index];
}

struct Row {
  std::vector<double> scaled;
  double log_normalizer = 0, entropy = 0;
};

Row compute(const HeadLogprob& p, int64_t target) {
  const int64_t vocabulary = p.weight.rows(), hidden = p.weight.cols();
  Row row;
  row.scaled.resize(static_cast<size_t>(vocabulary));
  double max = -INFINITY;
  for (int64_t v = 0; v < vocabulary; ++v) {
    double sum = 0;
    for (int64_t k = 0; k < hidden; ++k) {
      sum += load(p.hidden, p.rows[target] * hidden + k) * load(p.weight, panel_index(v, k, hidden, p.weight.dtype));
    }
    row.scaled[static_cast<size_t>(v)] = sum * p.inverse_temperature[target];
    max = std::max(max, row.scaled[static_cast<size_t>(v)]);
  }
  double sum = 0;
  for (double z : row.scaled) sum += std::exp(z - max);
  row.log_normalizer = max + std::log(sum);
  for (double z : row.scaled) row.entropy -= std::exp(z - row.log_normalizer) * (z - row.log_normalizer);
  return row;
}

}  // namespace

void head_logprob_forward(Context&, const HeadLogprob& p) {
  const int64_t vocabulary = p.weight.rows(), tiles = (vocabulary + kVocabularyTile - 1) / kVocabularyTile;
  for (int64_t target = 0; target < p.num_targets; ++target) {
    const Row row = compute(p, target);
    p.log_normalizer[target] = static_cast<float>(row.log_normalizer);
    if (p.tokens != nullptr) {
      p.logprob[target] = static_cast<float>(row.scaled[static_cast<size_t>(p.tokens[target])] - row.log_normalizer);
    }
    if (p.entropy != nullptr) p.entropy[target] = static_cast<float>(row.entropy);
    for (int64_t v = 0; v < vocabulary && p.logits != nullptr; ++v) {
      p.logits[target * vocabulary + v] = static_cast<float>(row.scaled[static_cast<size_t>(v)]);
    }
    for (int64_t tile = 0; tile < tiles && p.tile_sums != nullptr; ++tile) {
      const auto begin = row.scaled.begin() + tile * kVocabularyTile;
      const auto end = row.scaled.begin() + std::min<int64_t>((tile + 1) * kVocabularyTile, vocabulary);
      const double max = *std::max_element(begin, end);
      double sum = 0;
      for (auto z = begin; z != end; ++z) sum += std::exp(*z - max);
      p.tile_sums[(target * tiles + tile) * 2] = static_cast<float>(max);
      p.tile_sums[(target * tiles + tile) * 2 + 1] = static_cast<float>(sum);
    }
  }
}

void head_logprob_backward(Context& context, const HeadLogprob& p) {
  if (p.coefficients.fill != nullptr) {
    head_logprob_forward(context, p);
    p.coefficients.fill(p.coefficients.objective, 0, p.num_targets);
  }
  const int64_t vocabulary = p.weight.rows(), hidden = p.weight.cols();
  std::vector<double> grad_hidden(p.grad_hidden ? static_cast<size_t>(p.hidden.rows() * hidden) : 0, 0.0);
  std::vector<double> grad_weight(p.grad_weight ? static_cast<size_t>(vocabulary * hidden) : 0, 0.0);
  for (int64_t target = 0; target < p.num_targets; ++target) {
    const Row row = compute(p, target);
    const double grad_logprob = p.grad_logprob != nullptr ? p.grad_logprob[target] : 0;
    const double grad_entropy = p.grad_entropy != nullptr ? p.grad_entropy[target] : 0;
    for (int64_t v = 0; v < vocabulary; ++v) {
      const double log_p = row.scaled[static_cast<size_t>(v)] - row.log_normalizer, probability = std::exp(log_p);
      double grad = -grad_logprob * probability - grad_entropy * probability * (log_p + row.entropy);
      if (p.tokens != nullptr && p.tokens[target] == v) grad += grad_logprob;
      grad *= p.inverse_temperature[target];
      for (int64_t k = 0; k < hidden; ++k) {
        const int64_t at = p.rows[target] * hidden + k;
        if (p.grad_hidden) {
          grad_hidden[static_cast<size_t>(at)] += grad * load(p.weight, panel_index(v, k, hidden, p.weight.dtype));
        }
        if (p.grad_weight) grad_weight[static_cast<size_t>(v * hidden + k)] += grad * load(p.hidden, at);
      }
    }
  }
  for (size_t i = 0; i < grad_hidden.size(); ++i) {
    if (p.grad_hidden.dtype == DType::bf16) {
      p.grad_hidden.bf16()[i] = float_to_bf16(static_cast<float>(grad_hidden[i]));
    } else {
      p.grad_hidden.f32()[i] = static_cast<float>(grad_hidden[i]);
    }
  }
  for (size_t i = 0; i < grad_weight.size(); ++i) {
    const int64_t n = static_cast<int64_t>(i) / hidden, k = static_cast<int64_t>(i) % hidden;
    float& to = p.grad_weight.f32()[panel_index(n, k, hidden, p.weight.dtype)];
    to = static_cast<float>(to + grad_weight[i]);
  }
}

}  // namespace gavel::reference
