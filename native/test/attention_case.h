// Random packs of groups for attention tests, with the tensors around them.
#pragma once
#include <random>
#include <vector>

#include "model/attention_plan.h"
#include "reference/kernels.h"
#include "test/op_test.h"

namespace gavel::test {

struct Heads {
  int32_t query, kv, dim;
  int64_t columns() const { return (int64_t{query} + 2 * kv) * dim; }
};

// Garbage that must not matter: K of free slots may hold anything, V of free slots must be zeroed by the plan.
class Store {
 public:
  Store(int64_t blocks, Heads heads, DType dtype) : memory_({blocks * heads.kv * 2, kKeyBlock * heads.dim}, dtype) {
    memory_.poison();
  }
  KvStore view() const { return {memory_.tensor().data}; }

 private:
  GuardedTensor memory_;
};

struct AttentionCase {
  OwnedPlan plan;
  AttentionPlan view;
  Heads heads;
  Store store;
  GuardedTensor qkv, out, lse, grad_out, grad_qkv;
  Attention p;

  AttentionCase(OwnedPlan owned, Heads shape, DType dtype, uint64_t seed, double scale = 2.0)
      : plan(std::move(owned)),
        view(plan.view()),
        heads(shape),
        store(plan.num_blocks, shape, dtype),
        qkv(random_tensor({rows(), shape.columns()}, dtype, seed, scale)),
        out(poisoned_tensor({rows(), int64_t{shape.query} * shape.dim}, dtype)),
        lse(poisoned_tensor({rows(), shape.query}, DType::f32)),
        grad_out(random_tensor({rows(), int64_t{shape.query} * shape.dim}, dtype, seed + 1)),
        grad_qkv(poisoned_tensor({rows(), shape.columns()}, dtype)) {
    p.out = out;
    p.lse = lse;
    p.qkv = qkv;
    p.grad_out = grad_out;
    p.grad_qkv = grad_qkv;
    p.store = store.view();
    p.plan = &view;
    p.query_heads = shape.query;
    p.kv_heads = shape.kv;
    p.head_dim = shape.dim;
    p.scale = 1.0f / std::sqrt(static_cast<float>(shape.dim));
  }
  AttentionCase(const AttentionCase&) = delete;
  int64_t rows() const { return static_cast<int64_t>(plan.row_keys.size()); }
};

// What the device under test made of `one`, against the double reference.
inline void check_forward_result(AttentionCase& one, DType dtype) {
  const std::vector<double> out = one.out.doubles(), lse = one.lse.doubles();
  one.out.poison();
  one.lse.poison();
  TestContext context;
  reference::attention_forward(context, one.p);
  // bf16: p and out are rounded to 8 bits.
  CHECK_RELATIVE_L2(out, one.out.doubles(), dtype == DType::f32 ? 1e-6 : 4e-3);
  CHECK_MAX_ABS(lse, one.lse.doubles(), 4e-6);
}

// Consecutive groups given by prompt length and completion lengths.
struct GroupShape {
  int32_t prompt;
  std::vector<int32_t> completions;
};

inline OwnedPlan plan_of(const std::vector<GroupShape>& groups, int32_t tile_rows = 32) {
  int32_t rows = 0;
  for (const GroupShape& group : groups) {
    rows += group.prompt;
    for (int32_t length : group.completions) rows += length;
  }
  PlanBuilder builder(rows, tile_rows);
  int32_t row = 0;
  for (const GroupShape& group : groups) {
    const RowRange prompt{row, row + group.prompt};
    row = prompt.end;
    std::vector<RowRange> completions;
    for (int32_t length : group.completions) {
      completions.push_back({row, row + length});
      row += length;
    }
    builder.add_group(prompt, completions);
  }
  return std::move(builder).finish();
}

}  // namespace gavel::test
