// embedding: against the double reference, bits of a row, gradients; on the TestDevice that the includer names.
#pragma once
#include "reference/kernels.h"
#include "test/op_test.h"

namespace gavel::test {
namespace {

struct Layouts {
  Layout layout;
  DType dtype;
};

struct Run {
  GuardedTensor out, grad_table, grad_features;
};

using Kernel = void (*)(Context&, const Embedding&);

GuardedTensor table_of(int64_t vocabulary, int64_t columns, const Layouts& kind) {
  const std::vector<double> values = random_values(vocabulary * columns, 7);
  if (kind.layout == Layout::panels) return panel_tensor(vocabulary, columns, kind.dtype, values);
  return tensor_of({vocabulary, columns}, kind.dtype, values);
}

Run run(Kernel forward, Kernel backward, Context& context, const GuardedTensor& table, const GuardedTensor& features,
        const GuardedTensor& grad_out, const std::vector<int32_t>& tokens, const std::vector<int32_t>& feature_rows) {
  const Tensor& weight = table.tensor();
  GuardedTensor gradient = weight.layout == Layout::panels ? panel_gradient(weight.rows(), weight.cols(), weight.dtype)
                                                           : zero_tensor(weight.shape, DType::f32);
  Run result{poisoned_tensor(grad_out.tensor().shape, grad_out.tensor().dtype), std::move(gradient),
             poisoned_tensor(features.tensor().shape, features.tensor().dtype)};
  Embedding p;
  p.out = result.out;
  p.table = table;
  p.features = features;
  p.tokens = tokens.data();
  p.feature_rows = feature_rows.empty() ? nullptr : feature_rows.data();
  p.grad_out = grad_out;
  p.grad_table = result.grad_table;
  p.grad_features = result.grad_features;
  forward(context, p);
  backward(context, p);
  return result;
}

}  // namespace

TEST("embedding matches the reference for rows and panels, dtypes, features, paths and threads") {
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{1, 1}, {5, 7}, {40, 64}, {37, 131}}) {
    for (const Layouts& kind : {Layouts{Layout::rows, DType::f32},
                                {Layout::rows, DType::bf16},
                                {Layout::panels, DType::f32},
                                {Layout::panels, DType::bf16}}) {
      for (bool with_features : {false, true}) {
        const int64_t vocabulary = 45, num_features = 6;
        const GuardedTensor table = table_of(vocabulary, columns, kind);
        const GuardedTensor features = random_tensor({num_features, columns}, kind.dtype, 8);
        const GuardedTensor grad_out = random_tensor({rows, columns}, kind.dtype, 9);
        std::vector<int32_t> tokens, feature_rows;
        for (int64_t t = 0; t < rows; ++t) {
          tokens.push_back(static_cast<int32_t>((t * t * 7 + 44) % vocabulary));
          // Features 5, 3, 1 stand at rows 2, 4, 6; the others stand nowhere.
          if (with_features) feature_rows.push_back(t == 2 || t == 4 || t == 6 ? static_cast<int32_t>(7 - t) : -1);
        }
        TestContext plain(1, Isa::generic);
        const Run expected = run(reference::embedding_forward, reference::embedding_backward, plain, table, features,
                                 grad_out, tokens, feature_rows);
        for (Isa isa : TestDevice::isas()) {
          for (int threads : TestDevice::threads()) {
            TestContext context(threads, isa);
            const Run actual = run(TestDevice::embedding_forward, TestDevice::embedding_backward, context, table,
                                   features, grad_out, tokens, feature_rows);
            CHECK(same_bits(actual.out, expected.out));
            CHECK(same_bits(actual.grad_table, expected.grad_table));
            CHECK(same_bits(actual.grad_features, expected.grad_features));
            CHECK(kind.layout == Layout::rows || actual.grad_table.padding_is_zero());
          }
        }
      }
    }
  }
}

TEST("embedding reads tokens through sources, a negative one as token 0") {
  const int64_t columns = 20;
  const std::vector<int32_t> drawn{7, -1, 44, 3}, sources{2, 0, 0, 3, 1}, tokens{44, 7, 7, 3, 0};
  for (const Layouts& kind : {Layouts{Layout::rows, DType::f32}, {Layout::panels, DType::bf16}}) {
    const GuardedTensor table = table_of(45, columns, kind), grad_out = random_tensor({5, columns}, kind.dtype, 9);
    const auto run_with = [&](Kernel forward, Kernel backward, const int32_t* from, const int32_t* through) {
      TestContext context(2);
      GuardedTensor out = poisoned_tensor({5, columns}, kind.dtype);
      GuardedTensor gradient = kind.layout == Layout::panels ? panel_gradient(45, columns, kind.dtype)
                                                             : zero_tensor({45, columns}, DType::f32);
      Embedding p;
      p.out = out;
      p.table = table;
      p.tokens = from;
      p.sources = through;
      p.grad_out = grad_out;
      p.grad_table = gradient;
      forward(context, p);
      backward(context, p);
      return std::pair(std::move(out), std::move(gradient));
    };
    const auto expected = run_with(reference::embedding_forward, reference::embedding_backward, tokens.data(), nullptr);
    for (const Kernel forward : {Kernel{TestDevice::embedding_forward}, Kernel{reference::embedding_forward}}) {
      const Kernel backward = forward == Kernel{reference::embedding_forward} ? Kernel{reference::embedding_backward}
                                                                              : Kernel{TestDevice::embedding_backward};
      const auto actual = run_with(forward, backward, drawn.data(), sources.data());
      CHECK(same_bits(actual.first, expected.first));
      CHECK(same_bits(actual.second, expected.second));
    }
  }
}

TEST("embedding adds to a gradient that is already there, in ascending rows") {
  // Values whose fp32 sum depends on the order: 1e8 + 1 - 1e8.
  const GuardedTensor table = tensor_of({2, 1}, DType::f32, {0, 0});
  const std::vector<int32_t> tokens{1, 1, 1};
  for (int threads : TestDevice::threads()) {
    TestContext context(threads);
    Embedding p;
    const GuardedTensor out = poisoned_tensor({3, 1}, DType::f32),
                        grad_table = tensor_of({2, 1}, DType::f32, {0.25, 1.0});
    p.out = out;
    p.table = table;
    p.tokens = tokens.data();
    const GuardedTensor grad_out = tensor_of({3, 1}, DType::f32, {1e8, 1, -1e8});
    p.grad_out = grad_out;
    p.grad_table = grad_table;
    TestDevice::embedding_backward(context, p);
    CHECK_EQ(grad_table.doubles()[0], 0.25);
    CHECK_EQ(grad_table.doubles()[1], 0.0);
  }
}

}  // namespace gavel::test
