// Attention as its definition: softmax over the row's list of keys, in double. Keys and values are read from qkv
// through the plan's writes, never from the block store, so this is an oracle of packs whose keys are all in the pack.
#include <cmath>
#include <limits>
#include <vector>

#include "reference/access.h"
#include "reference/kernels.h"

namespace gavel::reference {
namespace {

class Rows {
 public:
  explicit Rows(const Attention& p) : p_(p), plan_(*p.plan), slots_(static_cast<size_t>(plan_.num_blocks) * kKeyBlock) {
    for (int32_t i = 0; i < plan_.num_writes; ++i) {
      const KvWrite& write = plan_.writes[i];
      if (write.block < 0) continue;
      slots_[static_cast<size_t>(write.block) * kKeyBlock + static_cast<size_t>(write.slot)] = write.row;
    }
  }

  // The row of qkv that holds key `index` of `row`'s list.
  int64_t key_row(const QueryTile& tile, int32_t row, int32_t index) const {
    const int32_t block = index / kKeyBlock;
    const int32_t id = block < tile.shared_count ? plan_.block_ids[tile.shared_begin + block]
                                                 : plan_.block_ids[plan_.row_tail[row] + block - tile.shared_count];
    return slots_[static_cast<size_t>(id) * kKeyBlock + static_cast<size_t>(index % kKeyBlock)];
  }

  int64_t columns() const { return (int64_t{p_.query_heads} + 2 * p_.kv_heads) * p_.head_dim; }
  int64_t query(int64_t row, int32_t head) const { return row * columns() + int64_t{head} * p_.head_dim; }
  int64_t key(int64_t row, int32_t head) const { return query(row, p_.query_heads + kv_head(head)); }
  int64_t value(int64_t row, int32_t head) const { return query(row, p_.query_heads + p_.kv_heads + kv_head(head)); }
  int64_t out(int64_t row, int32_t head) const { return (row * p_.query_heads + head) * p_.head_dim; }

  std::vector<double> probabilities(const QueryTile& tile, int32_t row, int32_t head, double* lse) const {
    std::vector<double> scores(static_cast<size_t>(plan_.row_keys[row]));
    double top = -std::numeric_limits<double>::infinity(), sum = 0;
    for (size_t j = 0; j < scores.size(); ++j) {
      const int64_t other = key(key_row(tile, row, static_cast<int32_t>(j)), head);
      double product = 0;
      for (int32_t d = 0; d < p_.head_dim; ++d) product += load(p_.qkv, query(row, head) + d) * load(p_.qkv, other + d);
      scores[j] = product * p_.scale;
      top = std::fmax(top, scores[j]);
    }
    for (double score : scores) sum += std::exp(score - top);
    *lse = top + std::log(sum);
    for (double& score : scores) score = std::exp(score - *lse);
    return scores;
  }

  template <class Body>
  void for_each(const Body& body) const {
    for (int32_t i = 0; i < plan_.num_tiles; ++i) {
      const QueryTile& tile = plan_.tiles[i];
      for (int32_t row = tile.row_begin; row < tile.row_begin + tile.row_count; ++row) {
        for (int32_t head = 0; head < p_.query_heads; ++head) body(tile, row, head);
      }
    }
  }

 private:
  int32_t kv_head(int32_t head) const { return head / (p_.query_heads / p_.kv_heads); }
  const Attention& p_;
  const AttentionPlan& plan_;
  std::vector<int32_t> slots_;
};

}  // namespace

void attention_forward(Context&, const Attention& p) {
  const Rows rows(p);
  rows.for_each([&](const QueryTile& tile, int32_t row, int32_t head) {
    double lse = 0;
    const std::vector<double> weights = rows.probabilities(tile, row, head, &lse);
    for (int32_t d = 0; d < p.head_dim; ++d) {
      double sum = 0;
      for (size_t j = 0; j < weights.size(); ++j) {
        sum += weights[j] * load(p.qkv, rows.value(rows.key_row(tile, row, static_cast<int32_t>(j)), head) + d);
      }
      store(p.out, rows.out(row, head) + d, sum);
    }
    if (p.lse) p.lse.f32()[int64_t{row} * p.query_heads + head] = static_cast<float>(lse);
  });
}

void attention_backward(Context&, const Attention& p) {
  const Rows rows(p);
  std::vector<double> grad(static_cast<size_t>(p.grad_qkv.shape.count()), 0.0);
  rows.for_each([&](const QueryTile& tile, int32_t row, int32_t head) {
    double lse = 0;
    const std::vector<double> weights = rows.probabilities(tile, row, head, &lse);
    const int64_t out = rows.out(row, head), query = rows.query(row, head);
    std::vector<double> grad_weight(weights.size(), 0.0);
    double mean = 0;  // sum of weight * grad_weight, the term every score's gradient shares
    for (size_t j = 0; j < weights.size(); ++j) {
      const int64_t value = rows.value(rows.key_row(tile, row, static_cast<int32_t>(j)), head);
      for (int32_t d = 0; d < p.head_dim; ++d) {
        const double upstream = load(p.grad_out, out + d);
        grad_weight[j] += upstream * load(p.qkv, value + d);
        grad[static_cast<size_t>(value + d)] += weights[j] * upstream;
      }
      mean += weights[j] * grad_weight[j];
    }
    for (size_t j = 0; j < weights.size(); ++j) {
      const int64_t key = rows.key(rows.key_row(tile, row, static_cast<int32_t>(j)), head);
      const double grad_score = weights[j] * (grad_weight[j] - mean) * p.scale;
      for (int32_t d = 0; d < p.head_dim; ++d) {
        grad[static_cast<size_t>(query + d)] += grad_score * load(p.qkv, key + d);
        grad[static_cast<size_t>(key + d)] += grad_score * load(p.qkv, query + d);
      }
    }
  });
  for (size_t i = 0; i < grad.size(); ++i) store(p.grad_qkv, static_cast<int64_t>(i), grad[i]);
}

}  // namespace gavel::reference
