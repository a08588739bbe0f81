// Graph builders: what a family file calls. Each allocates its result, runs and records one op.
#pragma once
#include <span>

#include "ops/all.h"
#include "ops/tape.h"

namespace gavel {

inline Tensor embedding(Tape& tape, Tensor table, const int32_t* tokens, int64_t count, Tensor features,
                        const int32_t* feature_rows, const int32_t* sources = nullptr, Tensor token_rows = {},
                        const int32_t* row_of_token = nullptr) {
  Embedding p;
  p.table = table;
  p.features = features;
  p.tokens = tokens;
  p.sources = sources;
  p.feature_rows = feature_rows;
  p.token_rows = token_rows;
  p.row_of_token = row_of_token;
  p.out = tape.activation({count, table.cols()}, table.dtype);
  tape.apply(Op::embedding, p, {table.id, features.id, token_rows.id}, p.out.id);
  return p.out;
}

inline Tensor patch_embedding(Tape& tape, Tensor weight, Tensor bias, const float* pixels, const int32_t* order,
                              int64_t rows) {
  PatchEmbedding p;
  p.weight = weight;
  p.bias = bias;
  p.pixels = pixels;
  p.order = order;
  p.out = tape.activation({rows, weight.rows()}, weight.dtype);
  p.gathered = tape.buffer({rows, weight.cols()}, weight.dtype);
  tape.apply(Op::patch_embedding, p, {weight.id, bias.id}, p.out.id);
  return p.out;
}

inline Tensor rms_norm(Tape& tape, Tensor x, Tensor weight, float eps) {
  RmsNorm p;
  p.x = x;
  p.weight = weight;
  p.eps = eps;
  p.out = tape.activation(x.shape, x.dtype);
  p.inverse_rms = tape.buffer({x.rows()}, DType::f32);
  tape.apply(Op::rms_norm, p, {x.id, weight.id}, p.out.id);
  return p.out;
}

inline Tensor layer_norm(Tape& tape, Tensor x, Tensor weight, Tensor bias, float eps) {
  LayerNorm p;
  p.x = x;
  p.weight = weight;
  p.bias = bias;
  p.eps = eps;
  p.out = tape.activation(x.shape, x.dtype);
  p.statistics = tape.buffer({x.rows(), 2}, DType::f32);
  tape.apply(Op::layer_norm, p, {x.id, weight.id, bias.id}, p.out.id);
  return p.out;
}

inline Tensor head_norm(Tape& tape, Tensor x, Tensor query_weight, Tensor key_weight, int32_t query_heads,
                        int32_t key_heads, int32_t head_dim, float eps) {
  HeadNorm p;
  p.x = x;
  p.query_weight = query_weight;
  p.key_weight = key_weight;
  p.query_heads = query_heads;
  p.key_heads = key_heads;
  p.head_dim = head_dim;
  p.eps = eps;
  p.out = tape.activation(x.shape, x.dtype);
  p.inverse_rms = tape.buffer({x.rows(), query_heads + key_heads}, DType::f32);
  tape.apply(Op::head_norm, p, {x.id, query_weight.id, key_weight.id}, p.out.id);
  return p.out;
}

// Sums of table rows, on top of `base` when it is there; `weights` null is all 1, `extra` one more row.
inline Tensor row_mix(Tape& tape, Tensor base, Tensor table, const int32_t* index, const float* weights, int32_t taps,
                      int64_t rows, Tensor extra = {}) {
  RowMix p;
  p.base = base;
  p.table = table;
  p.extra = extra;
  p.index = index;
  p.weights = weights;
  p.taps = taps;
  p.out = tape.activation({rows, table.cols()}, table.dtype);
  tape.apply(Op::row_mix, p, {base.id, table.id, extra.id}, p.out.id);
  return p.out;
}

inline Tensor resize_heads(Tape& tape, Tensor x, int32_t heads, int32_t from, int32_t to) {
  ResizeHeads p;
  p.x = x;
  p.heads = heads;
  p.from = from;
  p.to = to;
  p.out = tape.activation({x.rows(), int64_t{heads} * to}, x.dtype);
  tape.apply(Op::resize_heads, p, {x.id}, p.out.id);
  return p.out;
}

inline Tensor linear(Tape& tape, Tensor x, Tensor weight, Tensor bias = {}, Tensor residual = {}) {
  Linear p;
  p.x = x;
  p.weight = weight;
  p.bias = bias;
  p.residual = residual;
  p.out = tape.activation({x.rows(), weight.rows()}, x.dtype);
  tape.apply(Op::linear, p, {x.id, weight.id, bias.id, residual.id}, p.out.id);
  return p.out;
}

// linear() whose result takes the residual's memory: nothing may read the residual afterwards.
inline Tensor linear_onto(Tape& tape, Tensor x, Tensor weight, Tensor residual) {
  Linear p;
  p.x = x;
  p.weight = weight;
  p.residual = residual;
  p.out = tape.renamed(residual);
  tape.apply(Op::linear, p, {x.id, weight.id, residual.id}, p.out.id);
  return p.out;
}

// Rotates in place: x keeps its id, and its gradient is rotated back in place.
inline void rope(Tape& tape, Tensor x, Tensor cosine, Tensor sine, int32_t heads, int32_t head_dim) {
  Rope p;
  p.x = x;
  p.cosine = cosine;
  p.sine = sine;
  p.heads = heads;
  p.head_dim = head_dim;
  tape.apply(Op::rope, p, {x.id}, x.id);
}

struct RopeTables {
  Tensor cosine, sine;
};

inline RopeTables rope_table(Tape& tape, const int32_t* positions, int64_t rows, const std::vector<int32_t>& axis,
                             const std::vector<float>& inverse_frequency, float scale = 1.0f) {
  RopeTable p;
  const int64_t half = static_cast<int64_t>(inverse_frequency.size());
  p.cosine = tape.activation({rows, half}, DType::f32);
  p.sine = tape.buffer({rows, half}, DType::f32);
  p.positions = positions;
  p.axis = axis.data();
  p.inverse_frequency = inverse_frequency.data();
  p.scale = scale;
  tape.apply(Op::rope_table, p, {}, p.cosine.id);
  return {p.cosine, p.sine};
}

// `store` is one layer of a paged store; without data a transient one is taken from the arena for the call, into which
// `kept` pages are copied first.
inline Tensor attention(Tape& tape, Tensor qkv, const AttentionPlan* plan, KvStore store, int32_t query_heads,
                        int32_t kv_heads, int32_t head_dim, float scale, const KvPages& kept = {}) {
  Attention p;
  p.qkv = qkv;
  p.plan = plan;
  p.query_heads = query_heads;
  p.kv_heads = kv_heads;
  p.head_dim = head_dim;
  p.scale = scale;
  p.out = tape.activation({qkv.rows(), int64_t{query_heads} * head_dim}, qkv.dtype);
  p.lse = tape.buffer({qkv.rows(), query_heads}, DType::f32);
  p.store = store;
  const size_t mark = tape.arena().mark();
  if (store.data == nullptr) {
    const int64_t elements = int64_t{plan->num_blocks} * kv_heads * 2 * store.tile_size(head_dim);
    p.store.data = tape.buffer({elements}, qkv.dtype).data;
    const size_t bytes = static_cast<size_t>(kv_heads * 2 * store.tile_size(head_dim)) * dtype_size(qkv.dtype);
    for (const KvPage& page : kept.pages) {
      if (tape.dry()) break;
      tape.memory().upload(static_cast<uint8_t*>(p.store.data) + static_cast<size_t>(page.block) * bytes,
                           page.data + page.layer_bytes * kept.layer, bytes);
    }
  }
  tape.apply(Op::attention, p, {qkv.id}, p.out.id);
  tape.arena().reset(mark);
  return p.out;
}

inline Tensor swiglu(Tape& tape, Tensor x) {
  Swiglu p;
  p.x = x;
  p.out = tape.activation({x.rows(), x.cols() / 2}, x.dtype);
  tape.apply(Op::swiglu, p, {x.id}, p.out.id);
  return p.out;
}

inline Tensor gelu(Tape& tape, Tensor x, bool tanh_approximation = false) {
  Gelu p;
  p.tanh_approximation = tanh_approximation;
  p.x = x;
  p.out = tape.activation(x.shape, x.dtype);
  tape.apply(Op::gelu, p, {x.id}, p.out.id);
  return p.out;
}

inline Tensor relu(Tape& tape, Tensor x) {
  Relu p;
  p.x = x;
  p.out = tape.activation(x.shape, x.dtype);
  tape.apply(Op::relu, p, {x.id}, p.out.id);
  return p.out;
}

// `rows` must live until the backward. dtype: fp32 or that of x.
inline Tensor gather_rows(Tape& tape, Tensor x, std::span<const int32_t> rows, DType dtype) {
  GatherRows p;
  p.x = x;
  p.rows = rows.data();
  p.out = tape.activation({static_cast<int64_t>(rows.size()), x.cols()}, dtype);
  tape.apply(Op::gather_rows, p, {x.id}, p.out.id);
  return p.out;
}

// Where a mask comes from; probability 0 needs none of it.
struct DropoutKey {
  float probability = 0.0f;
  uint64_t seed = 0, site = 0;
  uint32_t first_row = 0;
};

inline Tensor dropout(Tape& tape, Tensor x, const float* column_scale, const DropoutKey& key = {}) {
  Dropout p;
  p.x = x;
  p.column_scale = column_scale;
  p.probability = key.probability;
  p.seed = key.seed;
  p.site = key.site;
  p.first_row = key.first_row;
  p.out = tape.activation(x.shape, x.dtype);
  tape.apply(Op::dropout, p, {x.id}, p.out.id);
  return p.out;
}

// The same memory seen as [rows, cols]; it keeps its id, so gradients keep the first shape's memory.
inline Tensor reshaped(Tensor x, int64_t rows, int64_t cols) {
  x.shape = {rows, cols};
  return x;
}

}  // namespace gavel
