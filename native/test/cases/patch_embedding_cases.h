// patch_embedding: against the double reference with and without an order, gradients by finite differences, and bits
// that do not depend on threads or instruction set.
#pragma once
#include "reference/kernels.h"
#include "test/gemm_path.h"

namespace gavel::test {
namespace {

struct Result {
  GuardedTensor out, gathered, grad_weight, grad_bias;
  Result(int64_t patches, int64_t hidden, int64_t columns, DType dtype)
      : out(poisoned_tensor({patches, hidden}, dtype)),
        gathered(poisoned_tensor({patches, columns}, dtype)),
        grad_weight(panel_gradient(hidden, columns, dtype)),
        grad_bias(zero_tensor({hidden}, DType::f32)) {}
  void attach(PatchEmbedding& p) const {
    p.out = out;
    p.gathered = gathered;
    p.grad_weight = grad_weight;
    p.grad_bias = grad_bias;
  }
};

}  // namespace

TEST("patch_embedding: matches the double reference, bits independent of threads and instruction set") {
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (auto [patches, hidden, columns] : {std::array<int64_t, 3>{1, 5, 3}, {64, 96, 147}, {30, 33, 588}}) {
      const GuardedTensor weight = panel_tensor(hidden, columns, dtype, random_values(hidden * columns, 1));
      const GuardedTensor bias = random_tensor({hidden}, dtype, 2),
                          grad_out = random_tensor({patches, hidden}, dtype, 3);
      const GuardedTensor pixels = random_tensor({patches, columns}, DType::f32, 4);
      std::vector<int32_t> order;
      for (int64_t i = 0; i < patches; ++i) order.push_back(static_cast<int32_t>((i * 7 + 3) % patches));
      for (const int32_t* given : {static_cast<const int32_t*>(nullptr), static_cast<const int32_t*>(order.data())}) {
        PatchEmbedding p;
        p.weight = weight;
        p.bias = bias;
        p.pixels = pixels.tensor().f32();
        p.order = given;
        p.grad_out = grad_out;
        for (PathCase path : TestDevice::paths()) {
          const Result want(patches, hidden, columns, dtype), gold(patches, hidden, columns, dtype);
          PathContext one(1, gold_path(path));
          want.attach(p);
          reference::patch_embedding_forward(one, p);
          reference::patch_embedding_backward(one, p);
          gold.attach(p);
          TestDevice::patch_embedding_forward(one, p);
          TestDevice::patch_embedding_backward(one, p);
          const double tolerance = dtype == DType::bf16 ? 4e-3 : 2e-6;
          CHECK_RELATIVE_L2(gold.out.doubles(), want.out.doubles(), tolerance);
          CHECK_RELATIVE_L2(gold.grad_weight.doubles(), want.grad_weight.doubles(), 3e-6);
          CHECK_RELATIVE_L2(gold.grad_bias.doubles(), want.grad_bias.doubles(), 3e-6);
          CHECK(same_bits(gold.gathered, want.gathered));
          PathContext two(2, path);
          const Result again(patches, hidden, columns, dtype);
          again.attach(p);
          TestDevice::patch_embedding_forward(two, p);
          TestDevice::patch_embedding_backward(two, p);
          CHECK(same_bits(again.out, gold.out));
          CHECK(same_bits(again.grad_weight, gold.grad_weight));
          CHECK(same_bits(again.grad_bias, gold.grad_bias));
        }
      }
    }
  }
}

TEST("patch_embedding: gradients are finite differences, and the order matters") {
  TestContext context;
  const int64_t patches = 3, hidden = 4, columns = 5;
  const std::vector<double> weight_values = random_values(hidden * columns, 5),
                            upstream = random_values(patches * hidden, 6);
  const GuardedTensor pixels = random_tensor({patches, columns}, DType::f32, 7);
  const GuardedTensor grad_out = tensor_of({patches, hidden}, DType::f32, upstream);
  const int32_t order[3] = {2, 0, 1};
  const auto run = [&](const std::vector<double>& values, const int32_t* given, const Result& result) {
    const GuardedTensor weight = panel_tensor(hidden, columns, DType::f32, values);
    PatchEmbedding p;
    p.weight = weight;
    p.pixels = pixels.tensor().f32();
    p.order = given;
    p.grad_out = grad_out;
    result.attach(p);
    reference::patch_embedding_forward(context, p);
    reference::patch_embedding_backward(context, p);
  };
  const Result ordered(patches, hidden, columns, DType::f32), plain(patches, hidden, columns, DType::f32);
  run(weight_values, order, ordered);
  run(weight_values, nullptr, plain);
  CHECK(max_abs_error(ordered.out.doubles(), plain.out.doubles()) > 0.1);
  const auto loss = [&](const std::vector<double>& values) {
    const Result result(patches, hidden, columns, DType::f32);
    run(values, order, result);
    return dot(result.out.doubles(), upstream);
  };
  CHECK_LE(gradient_error(loss, weight_values, ordered.grad_weight.doubles()), 1e-4);
}

TEST("patch_embedding: no patches do nothing") {
  TestContext context;
  const GuardedTensor weight = panel_tensor(4, 5, DType::f32, random_values(20, 1));
  const Result result(0, 4, 5, DType::f32);
  PatchEmbedding p;
  p.weight = weight;
  p.grad_out = result.out;
  result.attach(p);
  TestDevice::patch_embedding_forward(context, p);
  TestDevice::patch_embedding_backward(context, p);
  CHECK_EQ(max_abs_error(result.grad_weight.doubles(), std::vector<double>(20, 0.0)), 0.0);
}

}  // namespace gavel::test
