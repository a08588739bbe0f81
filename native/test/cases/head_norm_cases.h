// head_norm: against the double reference, equal bits for threads, instruction sets and batches, finite differences.
#pragma once
#include "reference/kernels.h"
#include "test/op_test.h"

namespace gavel::test {
namespace {

struct Sizes {
  int64_t rows;
  int32_t queries, keys, head_dim;
  int64_t columns() const { return int64_t{queries + 2 * keys} * head_dim; }
};

struct Run {
  GuardedTensor out, inverse, grad_x, grad_query, grad_key;
};

using Kernel = void (*)(Context&, const HeadNorm&);

Run run(Kernel forward, Kernel backward, Context& context, const Sizes& s, const GuardedTensor& x,
        const GuardedTensor& query, const GuardedTensor& key, const GuardedTensor& grad_out) {
  const DType dtype = x.tensor().dtype;
  Run result{poisoned_tensor({s.rows, s.columns()}, dtype), poisoned_tensor({s.rows, s.queries + s.keys}, DType::f32),
             poisoned_tensor({s.rows, s.columns()}, dtype), random_tensor({s.head_dim}, DType::f32, 8),
             random_tensor({s.head_dim}, DType::f32, 9)};
  HeadNorm p;
  p.out = result.out;
  p.inverse_rms = result.inverse;
  p.x = x;
  p.query_weight = query;
  p.key_weight = key;
  p.query_heads = s.queries;
  p.key_heads = s.keys;
  p.head_dim = s.head_dim;
  p.grad_out = grad_out;
  p.grad_x = result.grad_x;
  p.grad_query_weight = result.grad_query;
  p.grad_key_weight = result.grad_key;
  forward(context, p);
  backward(context, p);
  return result;
}

}  // namespace

TEST("head_norm matches the reference for shapes, dtypes, paths and threads, bit for bit between them") {
  for (const Sizes& s : {Sizes{1, 1, 1, 3}, {3, 2, 1, 16}, {70, 4, 2, 32}, {33, 3, 3, 131}, {5, 8, 2, 128}}) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      const GuardedTensor x = random_tensor({s.rows, s.columns()}, dtype, 1, 2.0),
                          query = random_tensor({s.head_dim}, dtype, 2, 1.0, 1.0),
                          key = random_tensor({s.head_dim}, dtype, 3, 1.0, 1.0),
                          grad_out = random_tensor({s.rows, s.columns()}, dtype, 4);
      TestContext plain(1, Isa::generic);
      const Run want =
          run(reference::head_norm_forward, reference::head_norm_backward, plain, s, x, query, key, grad_out);
      const Run first =
          run(TestDevice::head_norm_forward, TestDevice::head_norm_backward, plain, s, x, query, key, grad_out);
      const double tolerance = dtype == DType::f32 ? 2e-6 : 4e-3;
      CHECK_RELATIVE_L2(first.out.doubles(), want.out.doubles(), tolerance);
      CHECK_RELATIVE_L2(first.grad_x.doubles(), want.grad_x.doubles(), tolerance);
      CHECK_RELATIVE_L2(first.grad_query.doubles(), want.grad_query.doubles(), 3e-6);
      CHECK_RELATIVE_L2(first.grad_key.doubles(), want.grad_key.doubles(), 3e-6);
      for (Isa isa : TestDevice::isas()) {
        for (int threads : TestDevice::threads()) {
          TestContext context(threads, isa);
          const Run other =
              run(TestDevice::head_norm_forward, TestDevice::head_norm_backward, context, s, x, query, key, grad_out);
          CHECK(same_bits(first.out, other.out));
          CHECK(same_bits(first.grad_x, other.grad_x));
          CHECK(same_bits(first.grad_query, other.grad_query));
          CHECK(same_bits(first.grad_key, other.grad_key));
        }
      }
    }
  }
}

TEST("head_norm gradients agree with finite differences, and values pass through") {
  TestContext context(1);
  const Sizes s{3, 2, 1, 5};
  const std::vector<double> values = random_values(s.rows * s.columns(), 1, 1.5), query = random_values(5, 2, 0.3, 1.0),
                            key = random_values(5, 3, 0.3, 1.0), upstream = random_values(s.rows * s.columns(), 4);
  const GuardedTensor grad_out = tensor_of({s.rows, s.columns()}, DType::f32, upstream);
  const auto at = [&](const std::vector<double>& x, const std::vector<double>& q, const std::vector<double>& k) {
    return run(reference::head_norm_forward, TestDevice::head_norm_backward, context, s,
               tensor_of({s.rows, s.columns()}, DType::f32, x), tensor_of({5}, DType::f32, q),
               tensor_of({5}, DType::f32, k), grad_out);
  };
  const Run base = at(values, query, key);
  const std::vector<double> before_query = random_tensor({5}, DType::f32, 8).doubles(),
                            before_key = random_tensor({5}, DType::f32, 9).doubles();
  std::vector<double> grad_query = base.grad_query.doubles(), grad_key = base.grad_key.doubles();
  for (size_t i = 0; i < 5; ++i) {
    grad_query[i] -= before_query[i];
    grad_key[i] -= before_key[i];
  }
  const auto loss = [&](const Run& result) { return dot(result.out.doubles(), upstream); };
  CHECK_LE(gradient_error([&](const auto& x) { return loss(at(x, query, key)); }, values, base.grad_x.doubles()), 1e-4);
  CHECK_LE(gradient_error([&](const auto& q) { return loss(at(values, q, key)); }, query, grad_query), 1e-4);
  CHECK_LE(gradient_error([&](const auto& k) { return loss(at(values, query, k)); }, key, grad_key), 1e-4);
  const std::vector<double> out = base.out.doubles(),
                            rounded = tensor_of({s.rows, s.columns()}, DType::f32, values).doubles();
  for (int64_t row = 0; row < s.rows; ++row) {
    for (int64_t i = row * s.columns() + 15; i < (row + 1) * s.columns(); ++i)
      CHECK_EQ(out[static_cast<size_t>(i)], rounded[static_cast<size_t>(i)]);
  }
}

}  // namespace gavel::test
