// rope: against the double reference, bits of a row, gradients; on the TestDevice that the includer names.
#pragma once
#include "reference/kernels.h"
#include "test/op_test.h"

namespace gavel::test {
namespace {

struct RopeCase {
  GuardedTensor x, cosine, sine;
  Rope p;
  RopeCase(int64_t rows, int32_t heads, int32_t extra_columns, int32_t head_dim, DType dtype)
      : x(random_tensor({rows, int64_t{heads} * head_dim + extra_columns}, dtype, 1, 3.0)),
        cosine({rows, head_dim / 2}, DType::f32),
        sine({rows, head_dim / 2}, DType::f32) {
    const std::vector<double> angles = random_values(rows * head_dim / 2, 2, 10.0);
    for (int64_t i = 0; i < cosine.count(); ++i) {
      cosine.store(i, std::cos(angles[static_cast<size_t>(i)]));
      sine.store(i, std::sin(angles[static_cast<size_t>(i)]));
    }
    p.x = x;
    p.grad_x = x;
    p.cosine = cosine;
    p.sine = sine;
    p.heads = heads;
    p.head_dim = head_dim;
  }
};

}  // namespace

TEST("rope: both directions equal the reference and leave other columns alone") {
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (int64_t rows : {1, 5, 33}) {
      for (int32_t head_dim : {2, 16, 80, 128}) {
        for (const bool backward : {false, true}) {
          TestContext context(2);
          const int32_t extra = rows == 5 ? 7 : 8;
          RopeCase actual(rows, 3, extra, head_dim, dtype), expected(rows, 3, extra, head_dim, dtype);
          const std::vector<double> before = actual.x.doubles();
          (backward ? TestDevice::rope_backward : TestDevice::rope_forward)(context, actual.p);
          (backward ? reference::rope_backward : reference::rope_forward)(context, expected.p);
          CHECK_RELATIVE_L2(actual.x.doubles(), expected.x.doubles(), dtype == DType::f32 ? 1e-7 : 1e-4);
          CHECK(actual.x.doubles() != before);
          const int64_t columns = actual.x.tensor().cols();
          for (int64_t i = 0; i < actual.x.count(); ++i) {
            if (i % columns >= 3 * head_dim) CHECK_EQ(actual.x.load(i), before[static_cast<size_t>(i)]);
          }
        }
      }
    }
  }
}

TEST("rope: the backward is the gradient of the forward") {
  TestContext context;
  RopeCase one(3, 2, 0, 16, DType::f32);
  const std::vector<double> x = one.x.doubles(), upstream = random_values(one.x.count(), 5);
  one.x.assign(upstream);
  reference::rope_backward(context, one.p);
  const std::vector<double> grad = one.x.doubles();
  const auto f = [&](const std::vector<double>& point) {
    one.x.assign(point);
    reference::rope_forward(context, one.p);
    return dot(one.x.doubles(), upstream);
  };
  CHECK_LE(gradient_error(f, x, grad), 1e-5);
}

TEST("rope: a row has the same bits alone, in company and for any number of threads") {
  for (DType dtype : {DType::f32, DType::bf16}) {
    TestContext one_thread(1), three(3);
    RopeCase all(40, 3, 0, 64, dtype), again(40, 3, 0, 64, dtype);
    const GuardedTensor original = random_tensor(all.x.tensor().shape, dtype, 1, 3.0);
    TestDevice::rope_forward(three, all.p);
    TestDevice::rope_forward(one_thread, again.p);
    CHECK(same_bits(all.x, again.x));
    const size_t row_bytes = all.x.memory().size() / 40;
    for (size_t row = 0; row < 40; ++row) {
      GuardedTensor single({1, all.x.tensor().cols()}, dtype);
      std::memcpy(single.memory().data(), original.memory().data() + row * row_bytes, row_bytes);
      Rope p = all.p;
      p.x = single;
      p.cosine.data = all.p.cosine.f32() + row * 32;
      p.sine.data = all.p.sine.f32() + row * 32;
      p.cosine.shape = p.sine.shape = {1, 32};
      p.grad_x = {};
      TestDevice::rope_forward(one_thread, p);
      CHECK(std::memcmp(single.memory().data(), all.x.memory().data() + row * row_bytes, row_bytes) == 0);
    }
  }
}

TEST("rope table: angles are fp32 products of the position on the axis of each frequency") {
  const int64_t rows = 5, half = 8;
  const std::vector<int32_t> positions = {0, 1, 2, 70000, 4, 10, 11, 12, 13, 14, 0, 0, 5, 6, 123456};  // three axes
  const std::vector<int32_t> axis = {0, 0, 1, 1, 1, 2, 2, 2};
  std::vector<float> frequency;
  for (int64_t j = 0; j < half; ++j)
    frequency.push_back(static_cast<float>(std::pow(1e6, -static_cast<double>(j) / 8)));
  for (auto* forward : {TestDevice::rope_table_forward, reference::rope_table_forward}) {
    TestContext context(2);
    const GuardedTensor cosine = poisoned_tensor({rows, half}, DType::f32),
                        sine = poisoned_tensor({rows, half}, DType::f32);
    RopeTable p;
    p.cosine = cosine;
    p.sine = sine;
    p.positions = positions.data();
    p.axis = axis.data();
    p.inverse_frequency = frequency.data();
    forward(context, p);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t j = 0; j < half; ++j) {
        const float angle =
            static_cast<float>(positions[static_cast<size_t>(axis[static_cast<size_t>(j)] * rows + row)]) *
            frequency[static_cast<size_t>(j)];
        CHECK_NEAR(cosine.load(row * half + j), std::cos(static_cast<double>(angle)), 3e-8);
        CHECK_NEAR(sine.load(row * half + j), std::sin(static_cast<double>(angle)), 3e-8);
      }
    }
  }
}

}  // namespace gavel::test
