// What memory a parameter struct points to: one list an op, for whoever moves or checks it (a device's staging, tests).
// A visitor has
//   tensor(Tensor&, Access)            absent tensors included; count_of() says how many elements lie there
//   memory(T*& pointer, count, Access) plain memory that lives where tensors do; null included
//   array(T*& pointer, count, Access)  small lists that host code makes or reads for each call; null included
//   store(void*& pointer, bytes)       key and value blocks, read and written
#pragma once
#include <algorithm>

#include "ops/all.h"

namespace gavel {

enum class Access : uint8_t { read, write };  // write: read too, where the op accumulates

inline int64_t count_of(const Tensor& tensor) {
  return tensor.layout == Layout::panels ? panel_count(tensor.rows(), tensor.cols()) : tensor.shape.count();
}

template <class Visitor>
void visit_operands(Embedding& p, Visitor& v) {
  v.tensor(p.out, Access::write);
  v.tensor(p.table, Access::read);
  v.tensor(p.features, Access::read);
  int64_t tokens = p.out.rows();
  if (p.sources != nullptr) tokens = *std::max_element(p.sources, p.sources + p.out.rows()) + 1;
  v.array(p.tokens, tokens, Access::read);
  v.array(p.sources, p.out.rows(), Access::read);
  v.array(p.feature_rows, p.out.rows(), Access::read);
  v.tensor(p.token_rows, Access::read);
  v.array(p.row_of_token, p.table.rows(), Access::read);
  v.tensor(p.grad_out, Access::read);
  v.tensor(p.grad_table, Access::write);
  v.tensor(p.grad_features, Access::write);
  v.tensor(p.grad_token_rows, Access::write);
}

template <class Visitor>
void visit_operands(PatchEmbedding& p, Visitor& v) {
  v.tensor(p.out, Access::write);
  v.tensor(p.weight, Access::read);
  v.tensor(p.bias, Access::read);
  v.array(p.pixels, p.gathered.shape.count(), Access::read);
  v.array(p.order, p.gathered.rows(), Access::read);
  v.tensor(p.gathered, Access::write);
  v.tensor(p.grad_out, Access::read);
  v.tensor(p.grad_weight, Access::write);
  v.tensor(p.grad_bias, Access::write);
}

template <class Visitor>
void visit_operands(RmsNorm& p, Visitor& v) {
  v.tensor(p.out, Access::write);
  v.tensor(p.inverse_rms, Access::write);
  v.tensor(p.x, Access::read);
  v.tensor(p.weight, Access::read);
  v.tensor(p.grad_out, Access::read);
  v.tensor(p.grad_x, Access::write);
  v.tensor(p.grad_weight, Access::write);
}

template <class Visitor>
void visit_operands(LayerNorm& p, Visitor& v) {
  v.tensor(p.out, Access::write);
  v.tensor(p.statistics, Access::write);
  v.tensor(p.x, Access::read);
  v.tensor(p.weight, Access::read);
  v.tensor(p.bias, Access::read);
  v.tensor(p.grad_out, Access::read);
  v.tensor(p.grad_x, Access::write);
  v.tensor(p.grad_weight, Access::write);
  v.tensor(p.grad_bias, Access::write);
}

template <class Visitor>
void visit_operands(HeadNorm& p, Visitor& v) {
  v.tensor(p.out, Access::write);
  v.tensor(p.inverse_rms, Access::write);
  v.tensor(p.x, Access::read);
  v.tensor(p.query_weight, Access::read);
  v.tensor(p.key_weight, Access::read);
  v.tensor(p.grad_out, Access::read);
  v.tensor(p.grad_x, Access::write);
  v.tensor(p.grad_query_weight, Access::write);
  v.tensor(p.grad_key_weight, Access::write);
}

template <class Visitor>
void visit_operands(RowMix& p, Visitor& v) {
  v.tensor(p.out, Access::write);
  v.tensor(p.base, Access::read);
  v.tensor(p.table, Access::read);
  v.tensor(p.extra, Access::read);
  v.array(p.index, p.out.rows() * p.taps, Access::read);
  v.array(p.weights, p.out.rows() * p.taps, Access::read);
  v.tensor(p.grad_out, Access::read);
  v.tensor(p.grad_base, Access::write);
  v.tensor(p.grad_table, Access::write);
  v.tensor(p.grad_extra, Access::write);
}

template <class Visitor>
void visit_operands(ResizeHeads& p, Visitor& v) {
  v.tensor(p.out, Access::write);
  v.tensor(p.x, Access::read);
  v.tensor(p.grad_out, Access::read);
  v.tensor(p.grad_x, Access::write);
}

template <class Visitor>
void visit_operands(Linear& p, Visitor& v) {
  v.tensor(p.out, Access::write);
  v.tensor(p.x, Access::read);
  v.tensor(p.weight, Access::read);
  v.tensor(p.bias, Access::read);
  v.tensor(p.residual, Access::read);
  v.tensor(p.grad_out, Access::read);
  v.tensor(p.grad_x, Access::write);
  v.tensor(p.grad_weight, Access::write);
  v.tensor(p.grad_bias, Access::write);
  v.tensor(p.grad_residual, Access::write);
}

template <class Visitor>
void visit_operands(RopeTable& p, Visitor& v) {
  const int64_t half = p.cosine.cols();
  int32_t axes = 0;
  for (int64_t j = 0; j < half; ++j) axes = std::max(axes, p.axis[j] + 1);
  v.tensor(p.cosine, Access::write);
  v.tensor(p.sine, Access::write);
  v.array(p.positions, axes * p.cosine.rows(), Access::read);
  v.array(p.axis, half, Access::read);
  v.array(p.inverse_frequency, half, Access::read);
}

template <class Visitor>
void visit_operands(Rope& p, Visitor& v) {
  v.tensor(p.x, Access::write);
  v.tensor(p.cosine, Access::read);
  v.tensor(p.sine, Access::read);
  v.tensor(p.grad_x, Access::write);
}

// How many entries of block_ids the rows of a plan reach, and how many blocks its store must have.
struct PlanExtent {
  int64_t ids = 0, blocks = 0;
  PlanExtent(const AttentionPlan& plan) : blocks(plan.num_blocks) {
    for (int32_t i = 0; i < plan.num_tiles; ++i) {
      const QueryTile& tile = plan.tiles[i];
      ids = std::max<int64_t>(ids, int64_t{tile.shared_begin} + tile.shared_count);
      for (int32_t row = tile.row_begin; row < tile.row_begin + tile.row_count; ++row) {
        const int32_t visited = (plan.row_keys[row] + kKeyBlock - 1) / kKeyBlock;
        ids = std::max<int64_t>(ids, int64_t{plan.row_tail[row]} + std::max(0, visited - tile.shared_count));
      }
    }
    for (int64_t i = 0; i < ids; ++i) blocks = std::max<int64_t>(blocks, int64_t{plan.block_ids[i]} + 1);
    for (int32_t i = 0; i < plan.num_fresh; ++i) blocks = std::max<int64_t>(blocks, int64_t{plan.fresh_blocks[i]} + 1);
    for (int32_t i = 0; i < plan.num_copies; ++i)
      blocks = std::max<int64_t>(blocks, int64_t{std::max(plan.copies[i].from, plan.copies[i].to)} + 1);
    for (int32_t i = 0; i < plan.num_writes; ++i) blocks = std::max<int64_t>(blocks, int64_t{plan.writes[i].block} + 1);
  }
};

// The plan's arrays are visited through `plan`, a copy that the caller puts into p afterwards.
template <class Visitor>
void visit_plan(AttentionPlan& plan, int64_t rows, Visitor& v) {
  const PlanExtent extent(plan);
  v.array(plan.fresh_blocks, plan.num_fresh, Access::read);
  v.array(plan.copies, plan.num_copies, Access::read);
  v.array(plan.writes, plan.num_writes, Access::read);
  v.array(plan.tiles, plan.num_tiles, Access::read);
  v.array(plan.block_ids, extent.ids, Access::read);
  v.array(plan.row_keys, rows, Access::read);
  v.array(plan.row_tail, rows, Access::read);
  v.array(plan.units, plan.num_units, Access::read);
  v.array(plan.block_rows, int64_t{plan.num_blocks} * kKeyBlock, Access::read);
  if (plan.num_blocks == 0) return;
  const int64_t visits = plan.visit_begin[plan.num_blocks], slots = plan.slot_begin[rows];
  v.array(plan.visits, visits, Access::read);
  v.array(plan.visit_begin, int64_t{plan.num_blocks} + 1, Access::read);
  v.array(plan.slots, slots, Access::read);
  v.array(plan.slot_begin, rows + 1, Access::read);
}

template <class Visitor>
void visit_operands(Attention& p, Visitor& v) {
  v.tensor(p.out, Access::write);
  v.tensor(p.lse, Access::write);
  v.tensor(p.qkv, Access::read);
  v.tensor(p.grad_out, Access::read);
  v.tensor(p.grad_qkv, Access::write);
  const int64_t elements = PlanExtent(*p.plan).blocks * p.kv_heads * 2 * p.store.tile_size(p.head_dim);
  v.store(p.store.data, elements * static_cast<int64_t>(dtype_size(p.qkv.dtype)));
}

template <class Visitor>
void visit_operands(Swiglu& p, Visitor& v) {
  v.tensor(p.out, Access::write);
  v.tensor(p.x, Access::read);
  v.tensor(p.grad_out, Access::read);
  v.tensor(p.grad_x, Access::write);
}

template <class Visitor>
void visit_operands(Gelu& p, Visitor& v) {
  v.tensor(p.out, Access::write);
  v.tensor(p.x, Access::read);
  v.tensor(p.grad_out, Access::read);
  v.tensor(p.grad_x, Access::write);
}

template <class Visitor>
void visit_operands(Relu& p, Visitor& v) {
  v.tensor(p.out, Access::write);
  v.tensor(p.x, Access::read);
  v.tensor(p.grad_out, Access::read);
  v.tensor(p.grad_x, Access::write);
}

template <class Visitor>
void visit_operands(GatherRows& p, Visitor& v) {
  v.tensor(p.out, Access::write);
  v.tensor(p.x, Access::read);
  v.array(p.rows, p.out.rows(), Access::read);
  v.tensor(p.grad_out, Access::read);
  v.tensor(p.grad_x, Access::write);
}

template <class Visitor>
void visit_operands(Dropout& p, Visitor& v) {
  v.tensor(p.out, Access::write);
  v.tensor(p.x, Access::read);
  v.array(p.column_scale, p.x.cols(), Access::read);
  v.tensor(p.grad_out, Access::read);
  v.tensor(p.grad_x, Access::write);
}

template <class Visitor>
void visit_operands(HeadLogprob& p, Visitor& v) {
  const int64_t targets = p.num_targets, vocabulary = p.weight.rows();
  const int64_t tiles = (vocabulary + kVocabularyTile - 1) / kVocabularyTile;
  v.tensor(p.hidden, Access::read);
  v.tensor(p.weight, Access::read);
  v.array(p.rows, targets, Access::read);
  v.array(p.tokens, targets, Access::read);
  v.array(p.inverse_temperature, targets, Access::read);
  v.array(p.logprob, targets, Access::write);
  v.array(p.log_normalizer, targets, Access::write);
  v.array(p.entropy, targets, Access::write);
  v.memory(p.logits, targets * vocabulary, Access::write);
  v.memory(p.tile_sums, targets * tiles * 2, Access::write);
  v.array(p.grad_logprob, targets, Access::read);
  v.array(p.grad_entropy, targets, Access::read);
  v.tensor(p.grad_hidden, Access::write);
  v.tensor(p.grad_weight, Access::write);
}

template <class Visitor>
void visit_operands(SampleToken& p, Visitor& v) {
  const int64_t rows = p.num_rows, tiles = (int64_t{p.vocabulary} + kVocabularyTile - 1) / kVocabularyTile;
  v.memory(p.logits, rows * p.vocabulary, Access::read);
  v.array(p.log_normalizer, rows, Access::read);
  v.memory(p.tile_sums, rows * tiles * 2, Access::read);
  v.array(p.options, rows, Access::read);
  v.array(p.banned, p.num_banned, Access::read);
  v.array(p.tokens, rows, Access::write);
  v.array(p.logprob, rows, Access::write);
  v.array(p.log_kept_mass, rows, Access::write);
}

template <class Visitor>
void visit_operands(AdamW& p, Visitor& v) {
  v.tensor(p.value, Access::write);
  v.tensor(p.master, Access::write);
  v.memory(p.grad, p.count, Access::read);
  v.tensor(p.moment1, Access::write);
  v.tensor(p.moment2, Access::write);
  v.memory(p.scales1, state_blocks(p.count), Access::write);
  v.memory(p.scales2, state_blocks(p.count), Access::write);
}

// The gradients stand in a list of pointers that a visitor cannot put right: whoever moves them does it first, and
// keeps `grads` and `counts` where the host can read them.
template <class Visitor>
void visit_operands(GlobalNorm& p, Visitor& v) {
  v.array(p.norm, 1, Access::write);
  v.array(p.finite, 1, Access::write);
}

}  // namespace gavel
