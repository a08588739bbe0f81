#include "test/processor.h"
// The device comes first.
#include "cpu/dynamic_code.h"
#include "test/cases/adamw_states_cases.h"

namespace gavel::test {

TEST("dynamic maps are those of the paper: 256 values, decades cut twice as finely, zero at code 0") {
  std::vector<float> expected_signed{0.0f, 1.0f}, expected_unsigned{0.0f, 1.0f};
  for (int decade = 0; decade < 7; ++decade) {
    const double scale = std::pow(10.0, decade - 6);
    for (int steps : {1 << decade, 2 << decade}) {
      for (int i = 0; i < steps; ++i) {
        const double low = 0.1 + 0.9 * i / steps, high = 0.1 + 0.9 * (i + 1) / steps;
        const float mean = static_cast<float>(scale * (low + high) / 2);
        if (steps == 2 << decade) {
          expected_unsigned.push_back(mean);
        } else {
          expected_signed.push_back(mean);
          expected_signed.push_back(-mean);
        }
      }
    }
  }
  std::vector<float> actual_signed(kSignedMap.begin(), kSignedMap.end()),
      actual_unsigned(kUnsignedMap.begin(), kUnsignedMap.end());
  CHECK_EQ(kSignedMap[0], 0.0f);
  CHECK_EQ(kUnsignedMap[0], 0.0f);
  for (auto* list : {&actual_signed, &expected_signed, &actual_unsigned, &expected_unsigned})
    std::sort(list->begin(), list->end());
  const auto doubles = [](const std::vector<float>& list) { return std::vector<double>(list.begin(), list.end()); };
  CHECK_MAX_ABS(doubles(actual_signed), doubles(expected_signed), 1e-7);
  CHECK_MAX_ABS(doubles(actual_unsigned), doubles(expected_unsigned), 1e-7);
}

TEST("codes are the nearest of the map, over all magnitudes") {
  for (bool is_signed : {true, false}) {
    const std::array<float, 256>& map = is_signed ? kSignedMap : kUnsignedMap;
    std::vector<float> values;
    for (int i = 0; i < 200000; ++i) {
      const double magnitude = std::pow(10.0, -8.0 * i / 200000);
      values.push_back(static_cast<float>(is_signed && i % 2 == 1 ? -magnitude : magnitude));
    }
    for (size_t begin = 0; begin + 255 < values.size(); begin += 255) {
      std::vector<float> block{1.0f};  // the scale
      block.insert(block.end(), values.begin() + static_cast<int64_t>(begin),
                   values.begin() + static_cast<int64_t>(begin) + 255);
      uint8_t codes[256];
      const float scale =
          is_signed ? cpu::encode<true>(codes, block.data(), 256) : cpu::encode<false>(codes, block.data(), 256);
      CHECK_EQ(scale, 1.0f);
      for (size_t i = 0; i < 256; ++i) {
        double best = 2;
        for (float one : map) best = std::min(best, std::fabs(double{one} - block[i]));
        // A positive second moment is kept above zero.
        if (!is_signed) best = std::max(best, std::fabs(double{map[1]} - block[i]) * (block[i] < map[1]));
        const double gap = std::fabs(double{map[codes[i]]} - block[i]);
        CHECK_LE(gap, best + 1e-6 * std::fabs(block[i]));
      }
    }
  }
}

}  // namespace gavel::test
