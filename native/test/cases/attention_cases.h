// attention: against the double reference for every head size, gradients, dirty memory; on the TestDevice that the
// includer names.
#pragma once
#include "test/attention_case.h"
#include "test/gemm_path.h"

namespace gavel::test {
namespace {

const std::vector<GroupShape> kMixed = {{70, {3, 65, 40}}, {0, {17}}, {5, {1}}, {64, {2, 2}}, {130, {}}};

void check_forward(OwnedPlan plan, Heads heads, DType dtype, PathCase path) {
  PathContext context(2, path);
  AttentionCase one(std::move(plan), heads, dtype, 7);
  TestDevice::attention_forward(context, one.p);
  check_forward_result(one, dtype);
}

// The forward of the device under test gives out and lse; the oracle recomputes its own.
void check_backward(OwnedPlan plan, Heads heads, DType dtype, PathCase path) {
  PathContext context(2, path);
  AttentionCase one(std::move(plan), heads, dtype, 11);
  TestDevice::attention_forward(context, one.p);
  TestDevice::attention_backward(context, one.p);
  const std::vector<double> grad = one.grad_qkv.doubles();
  one.grad_qkv.poison();
  reference::attention_backward(context, one.p);
  // bf16: out, and with it D, is rounded to 8 bits; so is the result.
  CHECK_RELATIVE_L2(grad, one.grad_qkv.doubles(), dtype == DType::f32 ? 2e-6 : 6e-3);
}

}  // namespace

TEST("attention: forward equals the reference for every head size and dtype") {
  for (PathCase path : TestDevice::paths()) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      for (Heads heads : {Heads{4, 2, 16}, Heads{3, 1, 32}, Heads{2, 2, 48}, Heads{7, 1, 64}, Heads{2, 1, 80},
                          Heads{2, 2, 96}, Heads{1, 1, 112}, Heads{6, 2, 128}, Heads{1, 1, 256}}) {
        if (heads.dim > TestDevice::kMostHeadDim) continue;
        check_forward(plan_of(kMixed), heads, dtype, path);
      }
    }
  }
}

TEST("attention: backward equals the reference for every head size and dtype") {
  for (PathCase path : TestDevice::paths()) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      for (Heads heads : {Heads{4, 2, 16}, Heads{3, 1, 32}, Heads{2, 2, 48}, Heads{7, 1, 64}, Heads{2, 1, 80},
                          Heads{2, 2, 96}, Heads{1, 1, 112}, Heads{6, 2, 128}, Heads{1, 1, 256}}) {
        if (heads.dim > TestDevice::kMostHeadDim) continue;
        check_backward(plan_of(kMixed), heads, dtype, path);
      }
    }
  }
}

TEST("attention: entries without effect change nothing") {
  for (PathCase path : TestDevice::paths()) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      OwnedPlan plan = plan_of(kMixed);
      for (const size_t at : {size_t{0}, plan.writes.size() / 2, plan.writes.size()}) {
        plan.writes.insert(plan.writes.begin() + static_cast<std::ptrdiff_t>(at), 3, {1, -1, 5});
        plan.copies.push_back({-1, -1});
        plan.fresh_blocks.insert(plan.fresh_blocks.begin(), -1);
      }
      plan.tiles.insert(plan.tiles.begin() + 1, 2, {0, 0, 0, 0});
      plan.tiles.push_back({0, 0, 0, 0});
      check_forward(std::move(plan), {4, 2, 32}, dtype, path);
    }
  }
}

TEST("attention: full segments equal the reference") {
  const std::vector<int32_t> boundaries = {0, 16, 16, 17, 81, 145, 300};
  for (PathCase path : TestDevice::paths()) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      check_forward(plan_segments(boundaries), {2, 2, 80}, dtype, path);
      check_backward(plan_segments(boundaries), {2, 2, 80}, dtype, path);
    }
  }
}

TEST("attention: reference gradients equal finite differences") {
  TestContext context;
  AttentionCase one(plan_of({{5, {3, 4}}, {0, {2}}}), {4, 2, 16}, DType::f32, 3, 1.0);
  reference::attention_backward(context, one.p);
  const std::vector<double> grad = one.grad_qkv.doubles(), upstream = one.grad_out.doubles(), x = one.qkv.doubles();
  std::vector<size_t> chosen;
  for (size_t i = 0; i < x.size(); i += 7) chosen.push_back(i);
  const auto f = [&](const std::vector<double>& point) {
    one.qkv.assign(point);
    reference::attention_forward(context, one.p);
    return dot(one.out.doubles(), upstream);
  };
  CHECK_LE(gradient_error(f, x, grad, 0x1p-5, chosen), 1e-5);
}

TEST("attention: the backward has the same bits for any number of threads") {
  for (PathCase path : TestDevice::paths()) {
    AttentionCase one(plan_of({{70, {3, 65, 40}}, {0, {17}}, {20, {30, 30}}}), {6, 3, 32}, DType::bf16, 5);
    std::vector<uint8_t> first;
    for (int threads : TestDevice::threads()) {
      PathContext context(threads, path);
      TestDevice::attention_forward(context, one.p);
      one.grad_qkv.poison();
      TestDevice::attention_backward(context, one.p);
      const GuardedMemory& memory = one.grad_qkv.memory();
      const std::vector<uint8_t> bytes(memory.data(), memory.data() + memory.size());
      if (first.empty()) first = bytes;
      CHECK(bytes == first);
    }
  }
}

TEST("attention: rows outside every tile get zero gradient") {
  TestContext context(2);
  PlanBuilder builder(60);
  const RowRange completions[] = {{30, 41}, {41, 43}};
  builder.add_group({10, 30}, completions);
  AttentionCase one(std::move(builder).finish(), {2, 1, 16}, DType::f32, 9);
  TestDevice::attention_forward(context, one.p);
  TestDevice::attention_backward(context, one.p);
  const std::vector<double> grad = one.grad_qkv.doubles();
  for (size_t i = 0; i < grad.size(); ++i) {
    const size_t row = i / 64;
    if (row < 10 || row >= 43) CHECK_EQ(grad[i], 0.0);
  }
  one.grad_qkv.poison();
  reference::attention_backward(context, one.p);
  CHECK_RELATIVE_L2(grad, one.grad_qkv.doubles(), 2e-6);
}

TEST("attention: a NaN in a query or in a key it sees reaches the output") {
  for (PathCase path : TestDevice::paths()) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      for (int64_t column : {0, 17, 40}) {  // of the query, the key, the value
        PathContext context(1, path);
        AttentionCase one(plan_of({{3, {2}}}), {1, 1, 16}, dtype, 13);
        one.qkv.store(column, std::numeric_limits<double>::quiet_NaN());
        TestDevice::attention_forward(context, one.p);
        CHECK(std::isnan(one.out.load(column % 16)));
      }
    }
  }
}

}  // namespace gavel::test
