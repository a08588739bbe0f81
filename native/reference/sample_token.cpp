// A literal reading of Hugging Face's warpers: a full sort, cumulative sums from below, then the inverse distribution.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "reference/kernels.h"

namespace gavel::reference {
namespace {

constexpr double kDropped = -std::numeric_limits<double>::infinity();

std::vector<double> softmax(const std::vector<double>& scores) {
  const double largest = *std::max_element(scores.begin(), scores.end());
  std::vector<double> mass(scores.size());
  for (size_t i = 0; i < scores.size(); ++i) mass[i] = std::exp(scores[i] - largest);
  const double total = std::accumulate(mass.begin(), mass.end(), 0.0);
  for (double& one : mass) one /= total;
  return mass;
}

void filter(std::vector<double>& scores, const SampleOptions& options) {
  const size_t count = scores.size();
  if (options.top_k > 0) {
    std::vector<double> sorted = scores;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    const double kth = sorted[std::min(count, static_cast<size_t>(options.top_k)) - 1];
    for (double& score : scores) score = score < kth ? kDropped : score;
  }
  if (options.top_p < 1.0f) {
    std::vector<size_t> order(count);
    std::iota(order.begin(), order.end(), size_t{0});
    // Ascending; equal logits with the higher id first, so that the lower id is kept.
    std::sort(order.begin(), order.end(), [&](size_t left, size_t right) {
      return scores[left] < scores[right] || (scores[left] == scores[right] && left > right);
    });
    const std::vector<double> mass = softmax(scores);
    double running = 0;
    for (size_t i = 0; i + 1 < count; ++i) {
      running += mass[order[i]];
      if (running <= 1.0 - static_cast<double>(options.top_p)) scores[order[i]] = kDropped;
    }
  }
  if (options.min_p > 0.0f) {
    const std::vector<double> mass = softmax(scores);
    const double least = static_cast<double>(options.min_p) * *std::max_element(mass.begin(), mass.end());
    for (size_t i = 0; i < count; ++i) scores[i] = mass[i] < least ? kDropped : scores[i];
  }
}

}  // namespace

void sample_token_forward(Context&, const SampleToken& p) {
  for (int64_t row = 0; row < p.num_rows; ++row) {
    const float* logits = p.logits + row * p.vocabulary;
    const SampleOptions& options = p.options[row];
    std::vector<double> scores(logits, logits + p.vocabulary);
    for (int32_t i = 0; i < p.num_banned; ++i) scores[static_cast<size_t>(p.banned[i])] = kDropped;
    p.tokens[row] = -1;
    p.logprob[row] = p.log_kept_mass[row] = std::numeric_limits<float>::quiet_NaN();
    const bool bad = std::any_of(scores.begin(), scores.end(), [](double score) { return !(score < -kDropped); });
    if (bad || *std::max_element(scores.begin(), scores.end()) == kDropped) continue;

    size_t token = static_cast<size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
    if (!options.greedy) {
      filter(scores, options);
      const std::vector<double> mass = softmax(scores);
      double running = 0;
      for (size_t i = 0; i < scores.size(); ++i) {
        if (mass[i] == 0) continue;
        token = i;
        running += mass[i];
        if (running > static_cast<double>(random_uniform(options.key))) break;
      }
    }
    double kept = 0;
    for (double score : scores) kept += std::exp(score - p.log_normalizer[row]);
    p.tokens[row] = static_cast<int32_t>(token);
    p.logprob[row] = logits[token] - p.log_normalizer[row];
    p.log_kept_mass[row] = static_cast<float>(std::log(kept));
  }
}

}  // namespace gavel::reference
