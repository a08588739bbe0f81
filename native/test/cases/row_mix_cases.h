// row_mix: against the double reference, bits independent of threads and instruction set, gradients by finite
// differences, and gradients that are already there.
#pragma once
#include "reference/kernels.h"
#include "test/op_test.h"

namespace gavel::test {
namespace {

struct Mix {
  int64_t rows, table_rows, columns;
  int32_t taps;
  DType dtype;
  bool base, weighted, extra, parameter;
};

struct Run {
  GuardedTensor out, grad_base, grad_table, grad_extra;
};

using Kernel = void (*)(Context&, const RowMix&);

// Every third place reads nothing; the last table row is read by none, row 0 by many.
std::vector<int32_t> index_of(const Mix& c) {
  std::vector<int32_t> index;
  const int64_t limit = c.table_rows - 1 + (c.extra ? 2 : 0);
  for (int64_t i = 0; i < c.rows * c.taps; ++i) {
    int64_t n = i % 3 == 2 ? -1 : i % 5 == 0 ? 0 : (i * 7 + 3) % std::max<int64_t>(limit, 1);
    if (n == c.table_rows - 1) n = c.extra ? c.table_rows : 0;
    index.push_back(static_cast<int32_t>(n));
  }
  return index;
}

Run run(Kernel forward, Kernel backward, Context& context, const Mix& c) {
  const GuardedTensor base = random_tensor({c.rows, c.columns}, c.dtype, 1),
                      table = random_tensor({c.table_rows, c.columns}, c.dtype, 2),
                      extra = random_tensor({c.columns}, c.dtype, 3),
                      grad_out = random_tensor({c.rows, c.columns}, c.dtype, 4),
                      weights = random_tensor({c.rows * c.taps}, DType::f32, 5);
  const std::vector<int32_t> index = index_of(c);
  Run result{poisoned_tensor({c.rows, c.columns}, c.dtype), random_tensor({c.rows, c.columns}, c.dtype, 6),
             c.parameter ? random_tensor({c.table_rows, c.columns}, DType::f32, 7)
                         : poisoned_tensor({c.table_rows, c.columns}, c.dtype),
             random_tensor({c.columns}, DType::f32, 8)};
  RowMix p;
  p.out = result.out;
  if (c.base) p.base = base;
  p.table = table;
  if (c.extra) p.extra = extra;
  p.index = index.data();
  p.weights = c.weighted ? weights.tensor().f32() : nullptr;
  p.taps = c.taps;
  p.grad_out = grad_out;
  if (c.base) p.grad_base = result.grad_base;
  p.grad_table = result.grad_table;
  p.accumulate_table = c.parameter;
  if (c.extra) p.grad_extra = result.grad_extra;
  forward(context, p);
  backward(context, p);
  return result;
}

}  // namespace

TEST("row_mix matches the reference for shapes, dtypes, paths and threads, bit for bit between them") {
  for (const auto& [rows, table_rows, columns, taps] :
       {std::array<int64_t, 4>{1, 2, 1, 1}, {7, 3, 5, 1}, {40, 11, 64, 4}, {37, 50, 131, 4}, {300, 6, 33, 2}}) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      for (int mask = 0; mask < 16; ++mask) {
        const Mix c{rows,           table_rows,      columns,         static_cast<int32_t>(taps),
                    dtype,          (mask & 1) != 0, (mask & 2) != 0, (mask & 4) != 0,
                    (mask & 8) != 0};
        TestContext plain(1, Isa::generic);
        const Run want = run(reference::row_mix_forward, reference::row_mix_backward, plain, c);
        const Run first = run(TestDevice::row_mix_forward, TestDevice::row_mix_backward, plain, c);
        const double tolerance = dtype == DType::f32 ? 2e-6 : 4e-3;
        CHECK_RELATIVE_L2(first.out.doubles(), want.out.doubles(), tolerance);
        CHECK_RELATIVE_L2(first.grad_base.doubles(), want.grad_base.doubles(), tolerance);
        CHECK_RELATIVE_L2(first.grad_table.doubles(), want.grad_table.doubles(), tolerance);
        CHECK_RELATIVE_L2(first.grad_extra.doubles(), want.grad_extra.doubles(), 2e-6);
        for (Isa isa : TestDevice::isas()) {
          for (int threads : TestDevice::threads()) {
            TestContext context(threads, isa);
            const Run other = run(TestDevice::row_mix_forward, TestDevice::row_mix_backward, context, c);
            CHECK(same_bits(first.out, other.out));
            CHECK(same_bits(first.grad_base, other.grad_base));
            CHECK(same_bits(first.grad_table, other.grad_table));
            CHECK(same_bits(first.grad_extra, other.grad_extra));
          }
        }
      }
    }
  }
}

TEST("row_mix leaves the bits of base rows that nothing is added to") {
  TestContext context(2);
  for (DType dtype : {DType::f32, DType::bf16}) {
    const GuardedTensor base = random_tensor({20, 70}, dtype, 1), table = random_tensor({2, 70}, dtype, 2),
                        out = poisoned_tensor({20, 70}, dtype);
    std::vector<int32_t> index(20, -1);
    RowMix p;
    p.out = out;
    p.base = base;
    p.table = table;
    p.index = index.data();
    TestDevice::row_mix_forward(context, p);
    CHECK(same_bits(out, base));
  }
}

TEST("row_mix gradients agree with finite differences") {
  TestContext context(1);
  const int64_t rows = 5, table_rows = 3, columns = 4;
  const int32_t taps = 2;
  const std::vector<int32_t> index{0, 1, 2, -1, 3, 1, 1, 1, -1, 3};
  const std::vector<double> weights = random_values(rows * taps, 1), upstream = random_values(rows * columns, 2),
                            base = random_values(rows * columns, 3), values = random_values(table_rows * columns, 4),
                            extra_values = random_values(columns, 5);
  const GuardedTensor weight = tensor_of({rows * taps}, DType::f32, weights),
                      base_tensor = tensor_of({rows, columns}, DType::f32, base),
                      grad_out = tensor_of({rows, columns}, DType::f32, upstream);
  const auto mix = [&](const std::vector<double>& table, const std::vector<double>& extra,
                       const GuardedTensor* grad_table, const GuardedTensor* grad_extra) {
    const GuardedTensor table_tensor = tensor_of({table_rows, columns}, DType::f32, table),
                        extra_tensor = tensor_of({columns}, DType::f32, extra),
                        out = poisoned_tensor({rows, columns}, DType::f32);
    RowMix p;
    p.out = out;
    p.base = base_tensor;
    p.table = table_tensor;
    p.extra = extra_tensor;
    p.index = index.data();
    p.weights = weight.tensor().f32();
    p.taps = taps;
    reference::row_mix_forward(context, p);
    if (grad_table != nullptr) {
      p.grad_out = grad_out;
      p.grad_table = *grad_table;
      p.grad_extra = *grad_extra;
      TestDevice::row_mix_backward(context, p);
    }
    return dot(out.doubles(), upstream);
  };
  const GuardedTensor grad_table = poisoned_tensor({table_rows, columns}, DType::f32),
                      grad_extra = zero_tensor({columns}, DType::f32);
  mix(values, extra_values, &grad_table, &grad_extra);
  CHECK_LE(gradient_error([&](const std::vector<double>& x) { return mix(x, extra_values, nullptr, nullptr); }, values,
                          grad_table.doubles()),
           1e-4);
  CHECK_LE(gradient_error([&](const std::vector<double>& x) { return mix(values, x, nullptr, nullptr); }, extra_values,
                          grad_extra.doubles()),
           1e-4);
}

}  // namespace gavel::test
