// global_norm: against the double reference, bits of a row, gradients; on the TestDevice that the includer names.
#pragma once
#include <limits>

#include "reference/kernels.h"
#include "test/op_test.h"

namespace gavel::test {
namespace {

struct Result {
  double norm = -1;
  bool finite = false;
};

Result run(void (*forward)(Context&, const GlobalNorm&), Context& context, const std::vector<GuardedTensor>& grads) {
  std::vector<const float*> pointers;
  std::vector<int64_t> counts;
  for (const GuardedTensor& grad : grads) {
    pointers.push_back(grad.tensor().f32());
    counts.push_back(grad.count());
  }
  Result result;
  GlobalNorm p;
  p.grads = pointers.data();
  p.counts = counts.data();
  p.num_grads = static_cast<int32_t>(grads.size());
  p.norm = &result.norm;
  p.finite = &result.finite;
  forward(context, p);
  return result;
}

std::vector<GuardedTensor> gradients(double scale) {
  std::vector<GuardedTensor> grads;
  for (int64_t count : {1, 7, 4096, 4097, 20011})
    grads.push_back(random_tensor({count}, DType::f32, static_cast<uint64_t>(count), scale));
  return grads;
}

}  // namespace

TEST("global_norm matches the reference, with the same bits on every path and number of threads") {
  for (double scale : {1e-20, 1.0, 1e30}) {
    const std::vector<GuardedTensor> grads = gradients(scale);
    TestContext plain(1, Isa::generic);
    const Result expected = run(reference::global_norm_forward, plain, grads);
    const Result first = run(TestDevice::global_norm_forward, plain, grads);
    CHECK_NEAR(first.norm / expected.norm, 1.0, 1e-12);
    CHECK(first.finite);
    for (Isa isa : TestDevice::isas()) {
      for (int threads : TestDevice::threads()) {
        TestContext context(threads, isa);
        const Result other = run(TestDevice::global_norm_forward, context, grads);
        CHECK_EQ(other.norm, first.norm);
        CHECK(other.finite);
      }
    }
  }
}

TEST("global_norm finds one element that is not finite wherever it stands") {
  for (double value : {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(),
                       std::numeric_limits<double>::quiet_NaN()}) {
    for (int64_t place : {0, 4095, 4096, 20010}) {
      for (Isa isa : TestDevice::isas()) {
        std::vector<GuardedTensor> grads = gradients(1.0);
        grads.back().store(place, value);
        TestContext context(2, isa);
        CHECK(!run(TestDevice::global_norm_forward, context, grads).finite);
      }
    }
  }
}

TEST("global_norm of nothing is zero") {
  TestContext context(1);
  const Result result = run(TestDevice::global_norm_forward, context, {});
  CHECK_EQ(result.norm, 0.0);
  CHECK(result.finite);
}

}  // namespace gavel::test
