// Cases of matrix products, the language head, the optimizer and the draw of tokens.
#include <cmath>
#include <vector>

#include "bench/native/cuda/makers.h"
#include "cuda/split.h"

namespace gavel::bench {
namespace {

constexpr int64_t kFewRows = 256;  // those of decoding

float fan_in(int64_t k) { return 1 / std::sqrt(static_cast<float>(k)); }

std::vector<int32_t> ascending(int64_t count) {
  std::vector<int32_t> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<int32_t>(i);
  return values;
}

std::vector<int32_t> some_tokens(int64_t count, int64_t vocabulary) {
  std::vector<int32_t> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(static_cast<int32_t>(i * 7919 % vocabulary));
  return values;
}

Tensor row(float* data, int64_t count) {
  Tensor made;
  made.data = data;
  made.shape = {count};
  return made;
}

}  // namespace

// M N K
void make_linear(const Spec& spec, Operands& operands, Case* made) {
  const int64_t m = spec.sizes[0], n = spec.sizes[1], k = spec.sizes[2];
  Linear p;
  p.x = operands.random({m, k}, spec.dtype);
  p.weight = operands.random({n, k}, spec.dtype, fan_in(k), Layout::panels);
  made->ceiling = Ceiling::same_product;
  made->goal = 0.9;
  made->shape = words("%ld x %ld by %ld x %ld %s", m, k, k, n, spec.backward ? "backward" : "forward");
  if (!spec.backward) {
    p.out = operands.poisoned({m, n}, spec.dtype);
    made->flop = product(2, m, n, k);
    made->outputs = {p.out};
    if (m <= kFewRows) made->parts = [=](int64_t processors) { return cuda::product_parts(processors, m, n, k); };
    return finish(made, Op::linear, p);
  }
  p.grad_out = operands.random({m, n}, spec.dtype);
  p.out = without_data(p.grad_out);
  p.grad_x = operands.poisoned({m, k}, spec.dtype);
  p.grad_weight = operands.zeros({round_up(n, kPanel), round_up(k, 2)}, DType::f32);
  made->flop = product(4, m, n, k);
  made->outputs = {p.grad_x, p.grad_weight};
  finish(made, Op::linear, p, size_of(p.grad_weight));
}

// T H columns
void make_patch_embedding(const Spec& spec, Operands& operands, Case* made) {
  const int64_t t = spec.sizes[0], h = spec.sizes[1], columns = spec.sizes[2];
  PatchEmbedding p;
  p.weight = operands.random({h, columns}, spec.dtype, fan_in(columns), Layout::panels);
  made->ceiling = Ceiling::product;
  made->shape = words("T %ld, %ld pixels to H %ld %s", t, columns, h, spec.backward ? "backward" : "forward");
  made->flop = product(2, t, columns, h);
  if (spec.backward) {
    p.gathered = operands.random({t, columns}, spec.dtype);
    p.grad_out = operands.random({t, h}, spec.dtype);
    p.out = without_data(p.grad_out);
    p.grad_weight = operands.zeros({round_up(h, kPanel), round_up(columns, 2)}, DType::f32);
    made->outputs = {p.grad_weight};
    return finish(made, Op::patch_embedding, p, size_of(p.grad_weight));
  }
  p.pixels = operands.random({t, columns}, DType::f32).f32();
  p.gathered = operands.poisoned({t, columns}, spec.dtype);
  p.out = operands.poisoned({t, h}, spec.dtype);
  made->outputs = {p.out, p.gathered};
  finish(made, Op::patch_embedding, p);
}

// T V H; a tied table in the packed layout.
void make_embedding(const Spec& spec, Operands& operands, Case* made) {
  const int64_t t = spec.sizes[0], v = spec.sizes[1], h = spec.sizes[2];
  Embedding p;
  p.tokens = operands.array(some_tokens(t, v));
  p.table = operands.random({v, h}, spec.dtype, 1.0f, Layout::panels);
  made->V = v;
  made->shape = words("T %ld, H %ld %s", t, h, spec.backward ? "backward" : "forward");
  made->bytes = product(2, t, h, dtype_size(spec.dtype)) + product(t, 4);
  if (spec.backward) {
    p.grad_out = operands.random({t, h}, spec.dtype);
    p.grad_table = operands.zeros({round_up(v, kPanel), round_up(h, 2)}, DType::f32);
    p.out = without_data(p.grad_out);
    made->outputs = {p.grad_table};
    made->bytes = product(t, h, dtype_size(spec.dtype) + 8) + product(t, 4);
  } else {
    p.out = operands.poisoned({t, h}, spec.dtype);
    made->outputs = {p.out};
  }
  hold(made, Op::embedding, p);
}

// R V H, and 1 where the head's own weights train.
void make_head_logprob(const Spec& spec, Operands& operands, Case* made) {
  const int64_t r = spec.sizes[0], v = spec.sizes[1], h = spec.sizes[2];
  const bool trains = spec.sizes[3] == 1;
  HeadLogprob p;
  p.hidden = operands.random({r, h}, spec.dtype);
  p.weight = operands.random({v, h}, spec.dtype, fan_in(h), Layout::panels);
  p.num_targets = static_cast<int32_t>(r);
  p.rows = operands.array(ascending(r));
  p.tokens = operands.array(some_tokens(r, v));
  p.inverse_temperature = operands.array(std::vector<float>(static_cast<size_t>(r), 1.0f));
  made->V = v;
  made->ceiling = Ceiling::product;
  if (!spec.backward) {
    p.logprob = operands.poisoned({r}, DType::f32).f32();
    p.log_normalizer = operands.poisoned({r}, DType::f32).f32();
    made->flop = product(2, r, v, h);
    made->goal = 0.85;
    made->shape = words("R %ld, H %ld forward", r, h);
    made->outputs = {row(p.logprob, r), row(p.log_normalizer, r)};
    return finish(made, Op::head_logprob, p);
  }
  p.log_normalizer = operands.array(std::vector<float>(static_cast<size_t>(r), std::log(static_cast<float>(v))));
  p.grad_logprob = operands.random({r}, DType::f32).f32();
  p.grad_hidden = operands.poisoned({r, h}, spec.dtype);
  made->outputs = {p.grad_hidden};
  made->flop = product(trains ? 4 : 2, r, v, h);
  made->shape = words("R %ld, H %ld backward%s", r, h, trains ? "" : ", frozen head");
  if (trains) {
    p.grad_weight = operands.zeros({round_up(v, kPanel), round_up(h, 2)}, DType::f32);
    made->outputs.push_back(p.grad_weight);
  }
  finish(made, Op::head_logprob, p, trains ? size_of(p.grad_weight) : 0);
}

// B V H: what a decode step asks of the head.
void make_head_logits(const Spec& spec, Operands& operands, Case* made) {
  const int64_t b = spec.sizes[0], v = spec.sizes[1], h = spec.sizes[2],
                tiles = (v + kVocabularyTile - 1) / kVocabularyTile;
  HeadLogprob p;
  p.hidden = operands.random({b, h}, spec.dtype);
  p.weight = operands.random({v, h}, spec.dtype, fan_in(h), Layout::panels);
  p.num_targets = static_cast<int32_t>(b);
  p.rows = operands.array(ascending(b));
  p.inverse_temperature = operands.array(std::vector<float>(static_cast<size_t>(b), 1.0f));
  p.log_normalizer = operands.poisoned({b}, DType::f32).f32();
  p.logits = operands.poisoned({b, v}, DType::f32).f32();
  p.tile_sums = operands.poisoned({b, tiles, 2}, DType::f32).f32();
  made->V = v;
  made->ceiling = Ceiling::read;
  made->flop = product(2, b, v, h);
  made->shape = words("B %ld, H %ld, logits kept", b, h);
  made->outputs = {row(p.log_normalizer, b), row(p.logits, b * v), row(p.tile_sums, b * tiles * 2)};
  finish(made, Op::head_logprob, p);
}

// B V top_k top_p_percent
void make_sample_token(const Spec& spec, Operands& operands, Case* made) {
  const int64_t b = spec.sizes[0], v = spec.sizes[1];
  SampleToken p;
  p.num_rows = static_cast<int32_t>(b);
  p.vocabulary = static_cast<int32_t>(v);
  p.logits = operands.random({b, v}, DType::f32, 8.0f).f32();
  // Of uniform logits in [-8, 8): log(v sinh(8) / 8).
  const float normalizer = static_cast<float>(std::log(static_cast<double>(v) * std::sinh(8.0) / 8.0));
  p.log_normalizer = operands.array(std::vector<float>(static_cast<size_t>(b), normalizer));
  std::vector<SampleOptions> options(static_cast<size_t>(b));
  for (size_t i = 0; i < options.size(); ++i) {
    options[i].key.item = static_cast<uint32_t>(i);
    options[i].top_k = static_cast<int32_t>(spec.sizes[2]);
    options[i].top_p = static_cast<float>(spec.sizes[3]) / 100.0f;
  }
  p.options = operands.array(options);
  p.tokens = operands.array(std::vector<int32_t>(static_cast<size_t>(b), -1));
  p.logprob = operands.poisoned({b}, DType::f32).f32();
  p.log_kept_mass = operands.poisoned({b}, DType::f32).f32();
  made->V = v;
  made->ceiling = Ceiling::read;
  made->goal = 0.85;
  made->shape = words("B %ld, top-k %ld, top-p %ld %%", b, spec.sizes[2], spec.sizes[3]);
  made->outputs = {row(p.logprob, b), row(p.log_kept_mass, b)};
  finish(made, Op::sample_token, p);
}

// N, bytes of a moment's element (4, 2, 1), 1 with an fp32 master.
void make_adamw(const Spec& spec, Operands& operands, Case* made) {
  const int64_t count = spec.sizes[0], moment = spec.sizes[1];
  const bool master = spec.sizes[2] == 1;
  const DType state = moment == 4 ? DType::f32 : moment == 2 ? DType::bf16 : DType::u8;
  AdamW p;
  p.value = operands.random({count}, spec.dtype);
  if (master) p.master = operands.random({count}, DType::f32);
  p.grad = operands.random({count}, DType::f32).f32();
  p.moment1 = operands.zeros({count}, state);
  p.moment2 = operands.zeros({count}, state);
  if (moment == 1) {
    p.scales1 = operands.zeros({state_blocks(count)}, DType::f32).f32();
    p.scales2 = operands.zeros({state_blocks(count)}, DType::f32).f32();
  }
  p.count = count;
  p.learning_rate = 1e-6;
  p.step = 100;
  made->goal = 0.85;
  made->outputs = {p.value};
  double moved = size_of(p.value) + size_of(p.moment1) + size_of(p.moment2) +
                 (moment == 1 ? product(2, state_blocks(count), 4) : 0);
  if (master) {
    made->outputs.push_back(p.master);
    // The value is the master's rounding: it is written, never read.
    moved += size_of(p.master) - size_of(p.value);
  }
  made->shape = words("N %ld, moments of %ld bytes%s", count, moment, master ? ", fp32 master" : "");
  finish(made, Op::adamw, p, moved);
}

// N in 64 tensors.
void make_global_norm(const Spec& spec, Operands& operands, Case* made) {
  constexpr int64_t kTensors = 64;
  auto grads = std::make_shared<std::vector<const float*>>();
  auto counts = std::make_shared<std::vector<int64_t>>(kTensors, spec.sizes[0] / kTensors);
  for (int64_t count : *counts) grads->push_back(operands.random({count}, DType::f32).f32());
  GlobalNorm p;
  p.grads = grads->data();
  p.counts = counts->data();
  p.num_grads = kTensors;
  p.norm = static_cast<double*>(operands.copy(std::vector<double>(1, std::nan("")).data(), sizeof(double)));
  p.finite = static_cast<bool*>(operands.allocate(sizeof(bool)));
  made->held = {grads, counts};
  made->ceiling = Ceiling::read;
  made->goal = 0.85;
  made->shape = words("N %ld in 64 tensors", spec.sizes[0]);
  finish(made, Op::global_norm, p);
  made->bytes += product(kTensors, counts->front(), 4);
}

}  // namespace gavel::bench
