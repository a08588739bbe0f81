// Stored formats against ggml's reference dequantizers (test/goldens/gguf/blocks.*, made with the gguf package).
#include "model/quantized.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>

#include "core/threads.h"
#include "test/check.h"
#include "test/golden_file.h"

namespace gavel::test {
namespace {

// Where a tensor's bytes lie: the file has no metadata but its architecture, and 32-byte alignment.
std::vector<uint8_t> tensor_bytes(const std::string& name, size_t size) {
  const std::string here = __FILE__;
  const std::string path = here.substr(0, here.rfind("native/test/")) + "test/goldens/gguf/blocks.gguf";
  std::ifstream file(path, std::ios::binary);
  const std::string all(std::istreambuf_iterator<char>(file), {});
  const std::string key = std::string("\0\0\0\0\0\0\0", 7) + name + std::string("\x02\0\0\0", 4);
  const size_t at = all.find(key);
  if (at == std::string::npos) {
    fail(__FILE__, __LINE__, "no tensor " + name + " in " + path);
    return std::vector<uint8_t>(size);
  }
  uint64_t offset = 0;
  std::memcpy(&offset, all.data() + at + key.size() + 20, 8);
  // Data begin after the last tensor's entry: BF16 is the last.
  const size_t last = all.find(std::string("BF16\x02\0\0\0", 8)) + 8 + 28;
  const size_t begin = (last + 31) / 32 * 32 + offset;
  return {all.begin() + static_cast<ptrdiff_t>(begin), all.begin() + static_cast<ptrdiff_t>(begin + size)};
}

struct Named {
  const char* name;
  FileDType dtype;
};
constexpr Named kStored[] = {{"Q8_0", FileDType::q8_0}, {"Q4_0", FileDType::q4_0}, {"Q4_1", FileDType::q4_1},
                             {"Q4_K", FileDType::q4_k}, {"Q6_K", FileDType::q6_k}, {"F32", FileDType::f32},
                             {"F16", FileDType::f16},   {"BF16", FileDType::bf16}};

}  // namespace

TEST("stored formats decode to the reference's bits, denormals flushed or not") {
  const GoldenFile golden("gguf/blocks");
  for (const Named& one : kStored) {
    const std::vector<double> expected = golden.values(one.name);
    const auto count = static_cast<int64_t>(expected.size());
    const BlockSize block = block_size(one.dtype);
    const std::vector<uint8_t> bytes =
        tensor_bytes(one.name, static_cast<size_t>(count / block.elements * block.bytes));
    for (const bool flushed : {false, true}) {
      std::vector<float> values(expected.size());
      if (flushed) {
        const FlushDenormals flush;
        decode_elements(bytes.data(), count, one.dtype, values.data());
      } else {
        decode_elements(bytes.data(), count, one.dtype, values.data());
      }
      int64_t wrong = 0;
      for (size_t i = 0; i < values.size(); ++i) {
        wrong += std::bit_cast<uint32_t>(values[i]) != std::bit_cast<uint32_t>(static_cast<float>(expected[i]));
      }
      if (wrong > 0) fail(__FILE__, __LINE__, std::string(one.name) + ": " + std::to_string(wrong) + " other bits");
    }
  }
}

TEST("every half float decodes to its value, in blocks of any length") {
  std::vector<uint16_t> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> values(halves.size()), tail(7);
  const auto* bytes = reinterpret_cast<const uint8_t*>(halves.data());
  {
    const FlushDenormals flush;
    decode_elements(bytes, 65536, FileDType::f16, values.data());
  }
  for (size_t i = 0; i < halves.size(); ++i) {
    const int exponent = (halves[i] >> 10) & 31, fraction = halves[i] & 1023;
    double expected = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    if (exponent == 31) expected = fraction == 0 ? INFINITY : NAN;
    if ((halves[i] & 0x8000) != 0) expected = -expected;
    const bool same = std::isnan(expected)
                          ? std::isnan(values[i])
                          : std::bit_cast<uint32_t>(values[i]) == std::bit_cast<uint32_t>(static_cast<float>(expected));
    if (!same) fail(__FILE__, __LINE__, "half " + std::to_string(i));
  }
  decode_elements(bytes + 2 * 1021, 7, FileDType::f16, tail.data());
  for (size_t i = 0; i < 7; ++i) CHECK_EQ(tail[i], values[1021 + i]);
}

}  // namespace gavel::test
