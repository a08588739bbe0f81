// The fastest mode of products and attention: within the tolerances of the exact one, the same bits again for the same
// batch, inside the workspace that it announced; and parts are really taken, which other bits show.
#include <array>
#include <vector>

#include "ops/operands.h"
#include "test/attention_case.h"
#include "test/cuda/device.h"
#include "test/cuda/staged.h"
#include "test/linear_case.h"

namespace gavel::test {
namespace {

constexpr LinearKernels kDevice = {device::linear_forward, device::linear_backward};
// Of a card, so that the shapes below have too few tiles for it.
constexpr int kProcessors = 132;

std::vector<uint8_t> bytes_of(const GuardedTensor& tensor) {
  return {tensor.memory().data(), tensor.memory().data() + tensor.memory().size()};
}

std::vector<uint8_t> product(const Linear& given, const GuardedTensor& out) {
  TestContext context;
  Linear p = given;
  p.out = out;
  device::linear_forward(context, p);
  return bytes_of(out);
}

std::vector<uint8_t> attend(AttentionCase& one) {
  TestContext context;
  one.out.poison();
  one.lse.poison();
  device::attention_forward(context, one.p);
  std::vector<uint8_t> bytes = bytes_of(one.out), lse = bytes_of(one.lse);
  bytes.insert(bytes.end(), lse.begin(), lse.end());
  return bytes;
}

// A decode step of groups over pages of their own: every row's last key is its own.
OwnedPlan decode_plan(int32_t prompts, int32_t group, int32_t prompt, int32_t drawn) {
  const int32_t full = prompt / kKeyBlock, own = (prompt % kKeyBlock + drawn + kKeyBlock - 1) / kKeyBlock;
  int32_t page = 0;
  const auto pages = [&](int32_t count) {
    std::vector<int32_t> list;
    for (int32_t i = 0; i < count; ++i) list.push_back(page++);
    return list;
  };
  PlanBuilder builder(prompts * group);
  for (int32_t i = 0; i < prompts; ++i) {
    const std::vector<int32_t> shared = pages(full);
    std::vector<std::vector<int32_t>> tails;
    std::vector<DecodeRow> rows;
    for (int32_t g = 0; g < group; ++g) tails.push_back(pages(own));
    for (int32_t g = 0; g < group; ++g) rows.push_back({tails[static_cast<size_t>(g)], prompt + drawn - g % drawn});
    builder.add_decode_rows(i * group, shared, rows);
  }
  OwnedPlan plan = std::move(builder).finish();
  plan.num_blocks = 0;
  return plan;
}

// Pages hold finite values everywhere, as those of a sampler do.
struct DecodeCase {
  AttentionCase one;
  GuardedTensor pages;
  DecodeCase(OwnedPlan plan, Heads heads, DType dtype)
      : one(std::move(plan), heads, dtype, 21),
        pages(random_tensor({PlanExtent(one.view).blocks * heads.kv * 2, kKeyBlock * heads.dim}, dtype, 22)) {
    one.p.store = {pages.tensor().data};
  }
};

}  // namespace

TEST("cuda fastest: products of few rows match the double reference") {
  const FastestMode fastest(kProcessors);
  TestContext context;
  uint64_t seed = 500;
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (const auto& shape : kLinearShapes) check_linear(context, kDevice, dtype, shape, seed += 10);
    // Rows of every tile; depths that a part divides and that it does not, both ways (grad_x sums over outputs).
    for (const auto& shape : {std::array<int64_t, 3>{1, 33, 513}, {16, 70, 1030}, {17, 600, 545}, {65, 515, 768}})
      check_linear(context, kDevice, dtype, shape, seed += 10);
  }
}

TEST("cuda fastest: a product cut in parts repeats its bits, and the exact one keeps its own") {
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (const int64_t rows : {5, 40}) {
      const int64_t n = 45, k = 2050;
      const GuardedTensor x = tensor_of({rows, k}, dtype, random_values(rows * k, 1));
      const GuardedTensor weight = panel_tensor(n, k, dtype, random_values(n * k, 2));
      const GuardedTensor bias = random_tensor({n}, DType::f32, 3);
      GuardedTensor residual = random_tensor({rows, n}, dtype, 4);
      Linear p;
      p.x = x;
      p.weight = weight;
      p.bias = bias;
      p.residual = residual;
      const std::vector<uint8_t> exact = product(p, poisoned_tensor({rows, n}, dtype));
      CHECK_EQ(device_workspace(), uint64_t{0});
      std::vector<uint8_t> first;
      {
        const FastestMode fastest(kProcessors);
        first = product(p, poisoned_tensor({rows, n}, dtype));
        CHECK(device_workspace() > 0);
        CHECK(product(p, poisoned_tensor({rows, n}, dtype)) == first);
        CHECK(product(p, residual) == first);  // in place
      }
      if (dtype == DType::f32) CHECK(first != exact);
      residual.assign(random_values(rows * n, 4));
      CHECK(product(p, poisoned_tensor({rows, n}, dtype)) == exact);
    }
  }
}

TEST("cuda fastest: attention of few rows matches the double reference, decoding the exact mode") {
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (Heads heads : {Heads{4, 2, 16}, Heads{7, 1, 64}, Heads{2, 1, 80}, Heads{6, 2, 128}}) {
      DecodeCase decode(decode_plan(2, 5, 200, 90), heads, dtype);
      attend(decode.one);
      const std::vector<double> out = decode.one.out.doubles(), lse = decode.one.lse.doubles();
      const FastestMode fastest(kProcessors);
      attend(decode.one);
      CHECK_RELATIVE_L2(decode.one.out.doubles(), out, dtype == DType::f32 ? 1e-6 : 4e-3);
      CHECK_MAX_ABS(decode.one.lse.doubles(), lse, 4e-6);
      for (int32_t tile_rows : {3, 32}) {
        AttentionCase packed(plan_of({{200, {3, 65}}, {0, {17}}, {5, {1}}}, tile_rows), heads, dtype, 7);
        attend(packed);
        check_forward_result(packed, dtype);
      }
    }
  }
}

TEST("cuda fastest: attention cut in parts repeats its bits, and the exact one keeps its own") {
  for (DType dtype : {DType::f32, DType::bf16}) {
    DecodeCase decode(decode_plan(1, 8, 330, 70), {4, 2, 32}, dtype);
    const std::vector<uint8_t> exact = attend(decode.one);
    CHECK_EQ(device_workspace(), uint64_t{0});
    {
      const FastestMode fastest(kProcessors);
      const std::vector<uint8_t> first = attend(decode.one);
      CHECK(device_workspace() > 0);
      CHECK(first != exact);
      CHECK(attend(decode.one) == first);
    }
    CHECK(attend(decode.one) == exact);
  }
}

TEST("cuda fastest: rows outside every tile stay as they are") {
  const FastestMode fastest(kProcessors);
  TestContext context;
  AttentionCase one(plan_of({{300, {3}}}), {2, 1, 16}, DType::bf16, 9);
  const std::vector<int32_t> rows = {17, 301};
  one.plan.tiles = tiles_of_rows(one.view, rows);
  one.view = one.plan.view();
  one.out.poison();
  const std::vector<uint8_t> before = bytes_of(one.out);
  device::attention_forward(context, one.p);
  const std::vector<uint8_t> after = bytes_of(one.out);
  const size_t row = before.size() / 303;
  for (size_t i = 0; i < 303; ++i) {
    const bool same =
        std::equal(before.begin() + static_cast<int64_t>(i * row), before.begin() + static_cast<int64_t>((i + 1) * row),
                   after.begin() + static_cast<int64_t>(i * row));
    CHECK_EQ(same, i != 17 && i != 301);
  }
}

}  // namespace gavel::test
