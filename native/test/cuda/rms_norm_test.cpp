// rms_norm on the device against a sum in double: both dtypes, odd sizes, unaligned rows, guard bytes, and the same
// bits whatever the number of rows.
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "addon/cuda_plugin.h"
#include "core/dtype.h"
#include "ops/rms_norm.h"
#include "test/check.h"

namespace gavel {
namespace {

constexpr size_t kGuardBytes = 64;

const PluginBackend& backend() {
  Status status;
  return *cuda_backend(&status);
}

// Device memory of `bytes` at an offset from a 256-byte boundary, with guard bytes on both sides.
class DeviceBuffer {
 public:
  DeviceBuffer(size_t bytes, size_t offset) : bytes_(bytes), offset_(kGuardBytes + offset) {
    PluginStatus status;
    base_ = static_cast<char*>(backend().allocate(0, size(), &status));
    std::vector<char> fill(size(), char{0x5a});
    backend().copy_to_device(&launch_, base_, fill.data(), fill.size(), &status);
    CHECK(status.ok());
  }
  ~DeviceBuffer() {
    PluginStatus status;
    backend().release(0, base_, &status);
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  void* data() const { return base_ + offset_; }
  void write(const void* from) {
    PluginStatus status;
    backend().copy_to_device(&launch_, data(), from, bytes_, &status);
    backend().synchronize(&launch_, &status);
    CHECK(status.ok());
  }
  void read(void* to) const {
    std::vector<char> whole(size());
    PluginStatus status;
    backend().copy_to_host(&launch_, whole.data(), base_, whole.size(), &status);
    backend().synchronize(&launch_, &status);
    CHECK(status.ok());
    std::memcpy(to, whole.data() + offset_, bytes_);
    bool intact = true;
    for (size_t i = 0; i < offset_; ++i) intact = intact && whole[i] == char{0x5a};
    for (size_t i = offset_ + bytes_; i < whole.size(); ++i) intact = intact && whole[i] == char{0x5a};
    CHECK(intact);
  }

 private:
  size_t size() const { return offset_ + bytes_ + kGuardBytes; }
  size_t bytes_, offset_;
  char* base_ = nullptr;
  PluginLaunch launch_;
};

struct Case {
  int64_t rows, hidden;
  DType dtype;
  size_t offset;
};

std::vector<char> encode(const std::vector<float>& values, DType dtype) {
  std::vector<char> bytes(values.size() * dtype_size(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    const bf16_t narrow = float_to_bf16(values[i]);
    if (dtype == DType::bf16) std::memcpy(bytes.data() + 2 * i, &narrow, 2);
    if (dtype == DType::f32) std::memcpy(bytes.data() + 4 * i, &values[i], 4);
  }
  return bytes;
}

float decode(const std::vector<char>& bytes, size_t index, DType dtype) {
  if (dtype == DType::f32) {
    float value;
    std::memcpy(&value, bytes.data() + 4 * index, 4);
    return value;
  }
  bf16_t value;
  std::memcpy(&value, bytes.data() + 2 * index, 2);
  return bf16_to_float(value);
}

const PluginKernel& kernel() {
  for (int32_t i = 0; i < backend().num_kernels; ++i) {
    if (std::strcmp(backend().kernels[i].name, "rms_norm") == 0) return backend().kernels[i];
  }
  return backend().kernels[0];
}

std::vector<char> run(const Case& c, const std::vector<char>& x, const std::vector<char>& weight) {
  DeviceBuffer x_device(x.size(), c.offset), weight_device(weight.size(), c.offset), out_device(x.size(), c.offset);
  DeviceBuffer rms_device(static_cast<size_t>(c.rows) * 4, 0);
  x_device.write(x.data());
  weight_device.write(weight.data());
  RmsNorm p;
  p.x = {x_device.data(), {c.rows, c.hidden}, c.dtype};
  p.out = {out_device.data(), {c.rows, c.hidden}, c.dtype};
  p.weight = {weight_device.data(), {c.hidden}, c.dtype};
  p.inverse_rms = {rms_device.data(), {c.rows}, DType::f32};
  PluginStatus status;
  const PluginLaunch launch;
  CHECK(kernel().supports(&p));
  kernel().forward(&launch, &p, &status);
  backend().synchronize(&launch, &status);
  CHECK_EQ(std::string(status.message), std::string());
  std::vector<char> out(x.size());
  out_device.read(out.data());
  std::vector<char> rms(static_cast<size_t>(c.rows) * 4);
  rms_device.read(rms.data());
  return out;
}

std::vector<char> random_values(size_t count, DType dtype, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 2.0f);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return encode(values, dtype);
}

TEST("cuda rms_norm equals the sum in double") {
  const Case list[] = {{1, 1, DType::f32, 0},     {3, 7, DType::f32, 4},      {5, 64, DType::f32, 0},
                       {17, 896, DType::bf16, 0}, {2, 3584, DType::bf16, 0},  {64, 1023, DType::bf16, 2},
                       {4, 8192, DType::f32, 0},  {3, 16384, DType::bf16, 0}, {9, 33, DType::bf16, 6}};
  for (const Case& c : list) {
    const auto x = random_values(static_cast<size_t>(c.rows * c.hidden), c.dtype, 1);
    const auto weight = random_values(static_cast<size_t>(c.hidden), c.dtype, 2);
    const auto out = run(c, x, weight);
    for (int64_t row = 0; row < c.rows; ++row) {
      const auto at = [&](int64_t i) { return static_cast<size_t>(row * c.hidden + i); };
      double sum = 0;
      for (int64_t i = 0; i < c.hidden; ++i) sum += std::pow(double{decode(x, at(i), c.dtype)}, 2);
      const double scale = 1.0 / std::sqrt(sum / static_cast<double>(c.hidden) + 1e-6);
      for (int64_t i = 0; i < c.hidden; ++i) {
        const double exact = decode(x, at(i), c.dtype) * scale * decode(weight, static_cast<size_t>(i), c.dtype);
        const double tolerance = (c.dtype == DType::bf16 ? 0x1p-8 : 2e-6) * std::abs(exact) + 1e-30;
        CHECK_NEAR(decode(out, at(i), c.dtype), exact, tolerance);
      }
    }
  }
}

TEST("cuda rms_norm gives a row the same bits whatever the number of rows and the alignment") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const int64_t hidden = 1536;
    const size_t row_bytes = static_cast<size_t>(hidden) * dtype_size(dtype);
    const auto x = random_values(static_cast<size_t>(64 * hidden), dtype, 3);
    const auto weight = random_values(static_cast<size_t>(hidden), dtype, 4);
    const auto whole = run({64, hidden, dtype, 0}, x, weight);
    for (const int64_t rows : {int64_t{1}, int64_t{2}, int64_t{63}}) {
      const std::vector<char> part(x.begin(), x.begin() + rows * static_cast<int64_t>(row_bytes));
      for (const size_t offset : {size_t{0}, dtype_size(dtype)}) {
        const auto out = run({rows, hidden, dtype, offset}, part, weight);
        CHECK(std::memcmp(out.data(), whole.data(), out.size()) == 0);
      }
    }
  }
}

TEST("cuda rms_norm refuses tensors of two dtypes") {
  RmsNorm p;
  p.x = {nullptr, {2, 8}, DType::f32};
  p.out = {nullptr, {2, 8}, DType::bf16};
  p.weight = {nullptr, {8}, DType::f32};
  CHECK(!kernel().supports(&p));
  PluginStatus status;
  const PluginLaunch launch;
  kernel().forward(&launch, &p, &status);
  CHECK_EQ(status.code, static_cast<int32_t>(Code::unsupported));
}

}  // namespace
}  // namespace gavel
