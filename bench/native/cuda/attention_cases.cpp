// Cases of attention: groups in training (prompt and suffix ranges), windows of the vision tower, decode steps over
// pages.
#include <cmath>
#include <vector>

#include "bench/native/cuda/makers.h"
#include "cuda/split.h"
#include "model/attention_plan.h"

namespace gavel::bench {
namespace {

// Puts the plan's lists on the device.
struct Upload {
  Operands& operands;
  template <class T>
  void array(T*& pointer, int64_t count, Access) {
    pointer = count == 0 || pointer == nullptr
                  ? nullptr
                  : static_cast<T*>(operands.copy(pointer, static_cast<uint64_t>(count) * sizeof(T)));
  }
};

struct Heads {
  int64_t query, kv, dim;
  int64_t columns() const { return (query + 2 * kv) * dim; }
};

// Queries see `pairs` keys together; `keys` of them lie in memory once.
struct Work {
  double pairs = 0, keys = 0;
};

void finish_attention(const Spec& spec, Operands& operands, Case* made, const OwnedPlan& owned, const Heads& heads,
                      const Work& work) {
  const int64_t rows = static_cast<int64_t>(owned.row_keys.size()), columns = heads.query * heads.dim;
  const double element = static_cast<double>(dtype_size(spec.dtype));
  auto plan = std::make_shared<AttentionPlan>(owned.view());
  const int64_t elements = PlanExtent(*plan).blocks * heads.kv * 2 * kKeyBlock * heads.dim;
  Upload upload{operands};
  visit_plan(*plan, rows, upload);
  made->held.push_back(plan);
  Attention p;
  p.plan = plan.get();
  p.query_heads = static_cast<int32_t>(heads.query);
  p.kv_heads = static_cast<int32_t>(heads.kv);
  p.head_dim = static_cast<int32_t>(heads.dim);
  p.scale = 1.0f / std::sqrt(static_cast<float>(heads.dim));
  p.qkv = operands.random({rows, heads.columns()}, spec.dtype);
  p.store.data = operands.random({elements}, spec.dtype).data;
  made->flop = (spec.backward ? 10 : 4) * work.pairs * static_cast<double>(columns);
  made->bytes = element * (product(rows, heads.columns() + columns) + work.keys * product(2, heads.kv, heads.dim));
  if (spec.backward) {
    p.out = operands.random({rows, columns}, spec.dtype);
    p.lse = operands.random({rows, heads.query}, DType::f32);
    p.grad_out = operands.random({rows, columns}, spec.dtype);
    p.grad_qkv = operands.poisoned({rows, heads.columns()}, spec.dtype);
    made->outputs = {p.grad_qkv};
    made->bytes += element * product(rows, heads.columns() + columns);
  } else {
    p.out = operands.poisoned({rows, columns}, spec.dtype);
    p.lse = operands.poisoned({rows, heads.query}, DType::f32);
    made->outputs = {p.out, p.lse};
  }
  made->ceiling = Ceiling::product;
  hold(made, Op::attention, p);
}

Heads heads_of(const Spec& spec, size_t first) {
  return {spec.sizes[first], spec.sizes[first + 1], spec.sizes[first + 2]};
}

std::string heads_in_words(const Heads& heads) {
  return words("%ld:%ld heads of %ld", heads.query, heads.kv, heads.dim);
}

}  // namespace

// P G C Q K D: one group; G 0 is a sequence alone.
void make_attention(const Spec& spec, Operands& operands, Case* made) {
  const int32_t prompt = static_cast<int32_t>(spec.sizes[0]), group = static_cast<int32_t>(spec.sizes[1]),
                length = static_cast<int32_t>(spec.sizes[2]);
  PlanBuilder builder(prompt + group * length);
  std::vector<RowRange> completions;
  for (int32_t i = 0; i < group; ++i) completions.push_back({prompt + i * length, prompt + (i + 1) * length});
  builder.add_group({0, prompt}, completions);
  const OwnedPlan owned = std::move(builder).finish();
  const double p = prompt, g = group, c = length;
  const Heads heads = heads_of(spec, 3);
  made->P = prompt;
  if (group > 0) {
    made->G = group;
    made->C = length;
  }
  made->shape =
      heads_in_words(heads) + (group > 0 ? ", a group" : ", a sequence") + (spec.backward ? " backward" : " forward");
  finish_attention(spec, operands, made, owned, heads, {p * (p + 1) / 2 + g * (p * c + c * (c + 1) / 2), 0});
}

// T window Q K D: rows of a picture in windows that see themselves.
void make_attention_segments(const Spec& spec, Operands& operands, Case* made) {
  const int32_t rows = static_cast<int32_t>(spec.sizes[0]), window = static_cast<int32_t>(spec.sizes[1]);
  std::vector<int32_t> boundaries{0};
  double pairs = 0;
  while (boundaries.back() < rows) {
    const int32_t size = std::min(window, rows - boundaries.back());
    boundaries.push_back(boundaries.back() + size);
    pairs += static_cast<double>(size) * size;
  }
  const OwnedPlan owned = plan_segments(boundaries);
  const Heads heads = heads_of(spec, 2);
  made->shape = words("T %d in windows of %d, ", rows, window) + heads_in_words(heads) +
                (spec.backward ? " backward" : " forward");
  finish_attention(spec, operands, made, owned, heads, {pairs, 0});
}

// prompts G P C Q K D: the step that draws token C of every completion; full pages of a prompt are shared by its group.
void make_attention_decode(const Spec& spec, Operands& operands, Case* made) {
  const int64_t prompts = spec.sizes[0], group = spec.sizes[1], prompt = spec.sizes[2], drawn = spec.sizes[3];
  const int64_t full = prompt / kKeyBlock, rest = prompt % kKeyBlock + drawn, own = (rest + kKeyBlock - 1) / kKeyBlock;
  int32_t page = 0;
  const auto pages = [&](int64_t count) {
    std::vector<int32_t> list;
    for (int64_t i = 0; i < count; ++i) list.push_back(page++);
    return list;
  };
  PlanBuilder builder(static_cast<int32_t>(prompts * group));
  for (int64_t i = 0; i < prompts; ++i) {
    const std::vector<int32_t> shared = pages(full);
    std::vector<std::vector<int32_t>> tails;
    std::vector<DecodeRow> rows;
    for (int64_t g = 0; g < group; ++g) tails.push_back(pages(own));
    for (const std::vector<int32_t>& tail : tails) rows.push_back({tail, static_cast<int32_t>(prompt + drawn)});
    builder.add_decode_rows(static_cast<int32_t>(i * group), shared, rows);
  }
  const OwnedPlan owned = std::move(builder).finish();
  const Heads heads = heads_of(spec, 4);
  made->P = prompt;
  made->C = drawn;
  made->G = group;
  made->shape = words("decode, %ld prompts, ", prompts) + heads_in_words(heads);
  finish_attention(spec, operands, made, owned, heads,
                   {product(prompts * group, prompt + drawn), product(prompts, full * kKeyBlock + group * rest)});
  made->ceiling = Ceiling::read;
  const int64_t tiles = owned.view().num_tiles, rows = prompts * group;
  made->parts = [=](int64_t processors) {
    return cuda::attention_parts(processors, tiles, rows, heads.query / heads.kv, heads.kv, prompt + drawn);
  };
}

}  // namespace gavel::bench
