#include "cpu/dispatch.h"

#include <limits>

#include "test/op_test.h"

namespace gavel::test {

TEST("exp in a loop has the bits of the one exp, on every path, for every kind of number") {
  std::vector<float> values{0.0f,
                            -0.0f,
                            1e-40f,
                            cpu::kExpLowest,
                            cpu::kExpHighest,
                            std::nextafter(cpu::kExpLowest, -100.0f),
                            std::nextafter(cpu::kExpHighest, 100.0f),
                            std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::max(),
                            -1e30f};
  for (uint64_t i = 0; i < 200000; ++i) values.push_back(static_cast<float>(random_value(1, i) * 95));
  for (uint64_t i = 0; i < 20000; ++i) values.push_back(static_cast<float>(random_value(2, i) * 1e-3));
  for (Isa isa : isas()) {
    const GuardedArray<float> actual(values);
    {
      FlushDenormals flush;
      cpu::exp_row(isa, actual, actual.count());
    }
    int64_t different = 0;
    FlushDenormals flush;
    for (int64_t i = 0; i < actual.count(); ++i) {
      different +=
          std::bit_cast<uint32_t>(actual[i]) != std::bit_cast<uint32_t>(cpu::exp_one(values[static_cast<size_t>(i)]))
              ? 1
              : 0;
    }
    CHECK_EQ(different, int64_t{0});
    const GuardedArray<float> nan(1);
    cpu::exp_row(isa, nan, 1);
    CHECK(nan[0] != nan[0]);
  }
}

TEST("the sum of a row has one tree: 64 lanes, then halves") {
  for (int64_t count : {0, 1, 63, 64, 65, 1000}) {
    const std::vector<double> values = random_values(count, 5);
    float lanes[64] = {};
    for (int64_t i = 0; i < count; ++i) lanes[i % 64] += static_cast<float>(values[static_cast<size_t>(i)]);
    for (int width = 32; width > 0; width /= 2) {
      for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
    }
    const GuardedTensor row = tensor_of({count}, DType::f32, values);
    for (Isa isa : isas()) {
      float sum = -1;
      const float* x = row.tensor().f32();
      cpu::run_for_isa(
          isa, GAVEL_BODY { sum = cpu::lane_sum(count, [&](int64_t i) { return x[i]; }); });
      CHECK_EQ(sum, lanes[0]);
    }
  }
}

}  // namespace gavel::test
