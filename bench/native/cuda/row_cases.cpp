// Cases of the ops that stream rows: norms, activations, rotary positions, copies of rows.
#include <cmath>
#include <vector>

#include "bench/native/cuda/makers.h"

namespace gavel::bench {
namespace {

constexpr double kNormGoal = 0.85;  // of copy bandwidth

std::vector<int32_t> spread(int64_t count, int64_t below) {
  std::vector<int32_t> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(static_cast<int32_t>(i * 7919 % below));
  return values;
}

const char* pass(const Spec& spec) { return spec.backward ? "backward" : "forward"; }

// Activations: out [T, F] of x [T, width * F].
template <class Struct>
void activation(const Spec& spec, Operands& operands, Case* made, Op op, int64_t width) {
  const int64_t t = spec.sizes[0], f = spec.sizes[1];
  Struct p;
  p.x = operands.random({t, width * f}, spec.dtype, 4.0f);
  if (spec.backward) {
    p.grad_out = operands.random({t, f}, spec.dtype);
    p.grad_x = operands.poisoned({t, width * f}, spec.dtype);
    p.out = without_data(p.grad_out);
    made->outputs = {p.grad_x};
  } else {
    p.out = operands.poisoned({t, f}, spec.dtype);
    made->outputs = {p.out};
  }
  made->goal = kNormGoal;
  made->shape = words("T %ld, F %ld %s", t, f, pass(spec));
  finish(made, op, p);
}

}  // namespace

void make_rms_norm(const Spec& spec, Operands& operands, Case* made) {
  const int64_t t = spec.sizes[0], h = spec.sizes[1];
  RmsNorm p;
  p.x = operands.random({t, h}, spec.dtype);
  p.weight = operands.random({h}, spec.dtype);
  made->goal = kNormGoal;
  made->shape = words("T %ld, H %ld %s", t, h, pass(spec));
  if (!spec.backward) {
    p.out = operands.poisoned({t, h}, spec.dtype);
    p.inverse_rms = operands.poisoned({t}, DType::f32);
    made->outputs = {p.out, p.inverse_rms};
    return finish(made, Op::rms_norm, p);
  }
  p.inverse_rms = operands.random({t}, DType::f32);
  p.grad_out = operands.random({t, h}, spec.dtype);
  p.out = without_data(p.grad_out);
  p.grad_x = operands.poisoned({t, h}, spec.dtype);
  p.grad_weight = operands.zeros({h}, DType::f32);
  made->outputs = {p.grad_x, p.grad_weight};
  finish(made, Op::rms_norm, p, size_of(p.grad_weight));
}

void make_layer_norm(const Spec& spec, Operands& operands, Case* made) {
  const int64_t t = spec.sizes[0], h = spec.sizes[1];
  LayerNorm p;
  p.x = operands.random({t, h}, spec.dtype);
  p.weight = operands.random({h}, spec.dtype);
  made->goal = kNormGoal;
  made->shape = words("T %ld, H %ld %s", t, h, pass(spec));
  p.bias = operands.random({h}, spec.dtype);
  if (!spec.backward) {
    p.out = operands.poisoned({t, h}, spec.dtype);
    p.statistics = operands.poisoned({t, 2}, DType::f32);
    made->outputs = {p.out, p.statistics};
    return finish(made, Op::layer_norm, p);
  }
  p.statistics = operands.random({t, 2}, DType::f32);
  p.grad_out = operands.random({t, h}, spec.dtype);
  p.out = without_data(p.grad_out);
  p.grad_x = operands.poisoned({t, h}, spec.dtype);
  p.grad_weight = operands.zeros({h}, DType::f32);
  p.grad_bias = operands.zeros({h}, DType::f32);
  made->outputs = {p.grad_x, p.grad_weight, p.grad_bias};
  finish(made, Op::layer_norm, p, 2 * size_of(p.grad_weight));
}

void make_head_norm(const Spec& spec, Operands& operands, Case* made) {
  const int64_t t = spec.sizes[0], q = spec.sizes[1], k = spec.sizes[2], d = spec.sizes[3], columns = (q + 2 * k) * d;
  HeadNorm p;
  p.query_heads = static_cast<int32_t>(q);
  p.key_heads = static_cast<int32_t>(k);
  p.head_dim = static_cast<int32_t>(d);
  p.x = operands.random({t, columns}, spec.dtype);
  p.query_weight = operands.random({d}, spec.dtype);
  p.key_weight = operands.random({d}, spec.dtype);
  made->goal = kNormGoal;
  made->shape = words("T %ld, %ld:%ld heads of %ld %s", t, q, k, d, pass(spec));
  if (!spec.backward) {
    p.out = operands.poisoned({t, columns}, spec.dtype);
    p.inverse_rms = operands.poisoned({t, q + k}, DType::f32);
    made->outputs = {p.out, p.inverse_rms};
    return finish(made, Op::head_norm, p);
  }
  p.inverse_rms = operands.random({t, q + k}, DType::f32);
  p.grad_out = operands.random({t, columns}, spec.dtype);
  p.out = without_data(p.grad_out);
  p.grad_x = operands.poisoned({t, columns}, spec.dtype);
  p.grad_query_weight = operands.zeros({d}, DType::f32);
  p.grad_key_weight = operands.zeros({d}, DType::f32);
  made->outputs = {p.grad_x, p.grad_query_weight, p.grad_key_weight};
  finish(made, Op::head_norm, p, 2 * size_of(p.grad_key_weight));
}

void make_swiglu(const Spec& spec, Operands& operands, Case* made) {
  activation<Swiglu>(spec, operands, made, Op::swiglu, 2);
}
void make_gelu(const Spec& spec, Operands& operands, Case* made) {
  activation<Gelu>(spec, operands, made, Op::gelu, 1);
}
void make_relu(const Spec& spec, Operands& operands, Case* made) {
  activation<Relu>(spec, operands, made, Op::relu, 1);
}

// Queries and keys of a row are rotated in place, values stay.
void make_rope(const Spec& spec, Operands& operands, Case* made) {
  const int64_t t = spec.sizes[0], q = spec.sizes[1], k = spec.sizes[2], d = spec.sizes[3];
  Rope p;
  p.heads = static_cast<int32_t>(q + k);
  p.head_dim = static_cast<int32_t>(d);
  const Tensor rows = operands.random({t, (q + 2 * k) * d}, spec.dtype);
  (spec.backward ? p.grad_x : p.x) = rows;
  if (spec.backward) p.x = without_data(rows);
  p.cosine = operands.random({t, d / 2}, DType::f32);
  p.sine = operands.random({t, d / 2}, DType::f32);
  made->outputs = {rows};
  made->goal = kNormGoal;
  made->shape = words("T %ld, %ld:%ld heads of %ld %s", t, q, k, d, pass(spec));
  finish(made, Op::rope, p);
  made->bytes = product(t, q + k, d, 2, dtype_size(spec.dtype)) + 2 * size_of(p.cosine);
}

void make_rope_table(const Spec& spec, Operands& operands, Case* made) {
  const int64_t t = spec.sizes[0], d = spec.sizes[1];
  RopeTable p;
  p.cosine = operands.poisoned({t, d / 2}, DType::f32);
  p.sine = operands.poisoned({t, d / 2}, DType::f32);
  std::vector<int32_t> axis;
  std::vector<float> frequency;
  for (int64_t j = 0; j < d / 2; ++j) {
    axis.push_back(static_cast<int32_t>(3 * j / (d / 2)));
    frequency.push_back(static_cast<float>(std::pow(1e6, -2.0 * static_cast<double>(j) / static_cast<double>(d))));
  }
  p.positions = operands.array(spread(3 * t, 4096));
  p.axis = operands.array(axis);
  p.inverse_frequency = operands.array(frequency);
  made->outputs = {p.cosine, p.sine};
  made->shape = words("T %ld, three axes, heads of %ld", t, d);
  // The operand list reads `axis`, which lies on the device here.
  hold(made, Op::rope_table, p);
  made->bytes = 2 * size_of(p.cosine) + product(3, t, 4) + product(d / 2, 8);
}

void make_gather_rows(const Spec& spec, Operands& operands, Case* made) {
  const int64_t s = spec.sizes[0], t = spec.sizes[1], h = spec.sizes[2];
  GatherRows p;
  p.rows = operands.array(spread(s, t));
  made->shape = words("%ld of T %ld, H %ld %s", s, t, h, pass(spec));
  const double picked = product(s, h, 4);
  if (spec.backward) {
    p.grad_out = operands.random({s, h}, DType::f32);
    p.grad_x = operands.poisoned({t, h}, spec.dtype);
    p.out = without_data(p.grad_out);
    p.x = without_data(p.grad_x);
    made->outputs = {p.grad_x};
    hold(made, Op::gather_rows, p);
    made->bytes = picked + size_of(p.grad_x) + product(s, 4);
    return;
  }
  p.x = operands.random({t, h}, spec.dtype);
  p.out = operands.poisoned({s, h}, DType::f32);
  made->outputs = {p.out};
  hold(made, Op::gather_rows, p);
  made->bytes = picked + product(s, h, dtype_size(spec.dtype)) + product(s, 4);
}

void make_row_mix(const Spec& spec, Operands& operands, Case* made) {
  const int64_t r = spec.sizes[0], n = spec.sizes[1], h = spec.sizes[2], taps = spec.sizes[3];
  RowMix p;
  p.taps = static_cast<int32_t>(taps);
  p.index = operands.array(spread(r * taps, n));
  p.weights = operands.random({r, taps}, DType::f32).f32();
  p.table = operands.random({n, h}, spec.dtype);
  made->shape = words("R %ld, %ld taps of N %ld, H %ld %s", r, taps, n, h, pass(spec));
  if (spec.backward) {
    p.grad_out = operands.random({r, h}, spec.dtype);
    p.grad_table = operands.poisoned({n, h}, spec.dtype);
    p.out = without_data(p.grad_out);
    made->outputs = {p.grad_table};
    hold(made, Op::row_mix, p);
    made->bytes = size_of(p.grad_out) + size_of(p.grad_table) + product(r, taps, 8);
    return;
  }
  p.base = operands.random({r, h}, spec.dtype);
  p.out = operands.poisoned({r, h}, spec.dtype);
  made->outputs = {p.out};
  finish(made, Op::row_mix, p);
}

void make_resize_heads(const Spec& spec, Operands& operands, Case* made) {
  const int64_t t = spec.sizes[0], heads = spec.sizes[1], from = spec.sizes[2], to = spec.sizes[3];
  ResizeHeads p;
  p.heads = static_cast<int32_t>(heads);
  p.from = static_cast<int32_t>(from);
  p.to = static_cast<int32_t>(to);
  made->goal = kNormGoal;
  made->shape = words("T %ld, %ld heads of %ld to %ld %s", t, heads, from, to, pass(spec));
  if (spec.backward) {
    p.grad_out = operands.random({t, heads * to}, spec.dtype);
    p.grad_x = operands.poisoned({t, heads * from}, spec.dtype);
    p.out = without_data(p.grad_out);
    p.x = without_data(p.grad_x);
    made->outputs = {p.grad_x};
  } else {
    p.x = operands.random({t, heads * from}, spec.dtype);
    p.out = operands.poisoned({t, heads * to}, spec.dtype);
    made->outputs = {p.out};
  }
  finish(made, Op::resize_heads, p);
}

void make_dropout(const Spec& spec, Operands& operands, Case* made) {
  const int64_t t = spec.sizes[0], k = spec.sizes[1];
  Dropout p;
  p.probability = 0.1f;
  p.scale = 2.0f;
  made->goal = kNormGoal;
  made->shape = words("T %ld, K %ld %s", t, k, pass(spec));
  if (spec.backward) {
    p.grad_out = operands.random({t, k}, spec.dtype);
    p.grad_x = operands.poisoned({t, k}, spec.dtype);
    p.out = without_data(p.grad_out);
    p.x = without_data(p.grad_x);
    made->outputs = {p.grad_x};
  } else {
    p.x = operands.random({t, k}, spec.dtype);
    p.out = operands.poisoned({t, k}, spec.dtype);
    made->outputs = {p.out};
  }
  finish(made, Op::dropout, p);
}

}  // namespace gavel::bench
