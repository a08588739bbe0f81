// Tools for tests of ops: guarded tensors, panel packing, comparison in double, finite differences, contexts.
// A GuardedTensor fails the running test by itself when a guard byte around it was written, so no test can forget to
// look. Random values are a pure function of (seed, index).
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "core/context.h"
#include "core/tensor.h"
#include "test/check.h"

namespace gavel::test {

// Uniform in [-1, 1) on the grid of 2^-23 (splitmix64 of seed and index).
inline double random_value(uint64_t seed, uint64_t index) {
  uint64_t z = (seed * 0x9E3779B97F4A7C15u) ^ (index + 0x632BE59BD9B4E019u);
  for (int round = 0; round < 2; ++round) {
    z += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
  }
  return static_cast<double>(z >> 40) * 0x1p-23 - 1.0;
}

inline std::vector<double> random_values(int64_t count, uint64_t seed, double scale = 1.0, double centre = 0.0) {
  std::vector<double> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = centre + scale * random_value(seed, i);
  return values;
}

// Memory aligned to 64 bytes between two guards of 256 bytes. Moves, never copies.
class GuardedMemory {
 public:
  static constexpr size_t kGuard = 256;
  static constexpr uint8_t kPattern = 0xA5;

  explicit GuardedMemory(size_t size_bytes) : size_(size_bytes) {
    // The back guard begins at the very next byte, so an overrun of one element is seen.
    const size_t total = (kGuard + size_ + kGuard + 63) / 64 * 64;
    base_.reset(static_cast<uint8_t*>(std::aligned_alloc(64, total)));
    std::memset(base_.get(), kPattern, total);
  }
  GuardedMemory(GuardedMemory&&) = default;
  GuardedMemory& operator=(GuardedMemory&&) = delete;
  ~GuardedMemory() {
    if (base_ && !guards_intact())
      fail(__FILE__, __LINE__, "a guard byte around " + std::to_string(size_) + " bytes was written");
  }

  uint8_t* data() const { return base_.get() + kGuard; }
  size_t size() const { return size_; }
  bool guards_intact() const {
    for (size_t i = 0; i < kGuard; ++i) {
      if (base_.get()[i] != kPattern || base_.get()[kGuard + size_ + i] != kPattern) return false;
    }
    return true;
  }

 private:
  struct Free {
    void operator()(uint8_t* memory) const { std::free(memory); }
  };
  size_t size_;
  std::unique_ptr<uint8_t[], Free> base_;
};

// A flat guarded array for the raw pointers of parameter structs: float, double, int32_t, ... Poisoned when it is made.
template <class T>
class GuardedArray {
 public:
  explicit GuardedArray(int64_t count) : memory_(static_cast<size_t>(count) * sizeof(T)), count_(count) {
    std::memset(memory_.data(), 0xFF, memory_.size());  // NaN for floats, -1 for integers
  }
  GuardedArray(const std::vector<T>& values) : GuardedArray(static_cast<int64_t>(values.size())) {
    if (!values.empty()) std::memcpy(memory_.data(), values.data(), memory_.size());
  }
  T* data() const { return reinterpret_cast<T*>(memory_.data()); }
  operator T*() const { return data(); }
  T& operator[](int64_t index) const { return data()[index]; }
  int64_t count() const { return count_; }
  std::vector<double> doubles() const { return {data(), data() + count_}; }
  bool guards_intact() const { return memory_.guards_intact(); }

 private:
  GuardedMemory memory_;
  int64_t count_;
};

// Owns the memory behind a Tensor. Converts to Tensor, so `p.x = x;` works. `order` is the weight's dtype in panel
// layout (an fp32 gradient of a bf16 weight lies in bf16 order).
class GuardedTensor {
 public:
  GuardedTensor(Shape shape, DType dtype, Layout layout = Layout::rows, DType order = DType::f32)
      : order_(order), memory_(static_cast<size_t>(storage_count(shape, layout)) * dtype_size(dtype)) {
    tensor_.data = memory_.data();
    tensor_.shape = shape;
    tensor_.dtype = dtype;
    tensor_.layout = layout;
  }

  operator Tensor() const { return tensor_; }
  const Tensor& tensor() const { return tensor_; }
  DType order() const { return order_; }
  const GuardedMemory& memory() const { return memory_; }
  bool guards_intact() const { return memory_.guards_intact(); }
  // Elements in memory, padding of panels included.
  int64_t storage() const { return storage_count(tensor_.shape, tensor_.layout); }
  int64_t count() const { return tensor_.shape.count(); }

  double load(int64_t storage_index) const {
    if (tensor_.dtype == DType::f32) return tensor_.f32()[storage_index];
    if (tensor_.dtype == DType::bf16) return bf16_to_float(tensor_.bf16()[storage_index]);
    return tensor_.i32()[storage_index];
  }
  void store(int64_t storage_index, double value) const {
    if (tensor_.dtype == DType::f32) tensor_.f32()[storage_index] = static_cast<float>(value);
    if (tensor_.dtype == DType::bf16) tensor_.bf16()[storage_index] = float_to_bf16(static_cast<float>(value));
    if (tensor_.dtype == DType::i32) tensor_.i32()[storage_index] = static_cast<int32_t>(value);
  }
  // Where row-major element `index` of the shape lies in memory.
  int64_t place(int64_t index) const {
    if (tensor_.layout == Layout::rows) return index;
    return panel_index(index / tensor_.cols(), index % tensor_.cols(), tensor_.cols(), order_);
  }

  GuardedTensor& fill(double value) {
    for (int64_t i = 0; i < storage(); ++i) store(i, value);
    return *this;
  }
  GuardedTensor& poison() { return fill(std::numeric_limits<double>::quiet_NaN()); }
  // Row-major values in, whatever the layout; padding of panels becomes zero.
  GuardedTensor& assign(const std::vector<double>& values) {
    if (tensor_.layout == Layout::panels) fill(0.0);
    for (int64_t i = 0; i < count(); ++i) store(place(i), values[static_cast<size_t>(i)]);
    return *this;
  }
  // Row-major values out, whatever the layout.
  std::vector<double> doubles() const {
    std::vector<double> values(static_cast<size_t>(count()));
    for (int64_t i = 0; i < count(); ++i) values[static_cast<size_t>(i)] = load(place(i));
    return values;
  }
  // True when every padding element of the panel layout is zero (an op must never write there).
  bool padding_is_zero() const {
    std::vector<bool> used(static_cast<size_t>(storage()), false);
    for (int64_t i = 0; i < count(); ++i) used[static_cast<size_t>(place(i))] = true;
    for (int64_t i = 0; i < storage(); ++i) {
      if (!used[static_cast<size_t>(i)] && load(i) != 0.0) return false;
    }
    return true;
  }

 private:
  static int64_t storage_count(const Shape& shape, Layout layout) {
    return layout == Layout::panels ? panel_count(shape[0], shape[1]) : shape.count();
  }
  Tensor tensor_;
  DType order_;
  GuardedMemory memory_;
};

inline GuardedTensor random_tensor(Shape shape, DType dtype, uint64_t seed, double scale = 1.0, double centre = 0.0) {
  GuardedTensor result(shape, dtype);
  result.assign(random_values(shape.count(), seed, scale, centre));
  return result;
}
inline GuardedTensor tensor_of(Shape shape, DType dtype, const std::vector<double>& values) {
  GuardedTensor result(shape, dtype);
  result.assign(values);
  return result;
}
inline GuardedTensor zero_tensor(Shape shape, DType dtype) {
  GuardedTensor result(shape, dtype);
  result.fill(0.0);
  return result;
}
// Every element is NaN: an output that an op must write whole.
inline GuardedTensor poisoned_tensor(Shape shape, DType dtype) {
  GuardedTensor result(shape, dtype);
  result.poison();
  return result;
}
// A weight W[n, k] in panel layout from row-major values.
inline GuardedTensor panel_tensor(int64_t n, int64_t k, DType dtype, const std::vector<double>& values) {
  GuardedTensor result({n, k}, dtype, Layout::panels, dtype);
  result.assign(values);
  return result;
}
// A zeroed fp32 gradient of a panel weight of dtype `order`.
inline GuardedTensor panel_gradient(int64_t n, int64_t k, DType order) {
  GuardedTensor result({n, k}, DType::f32, Layout::panels, order);
  result.fill(0.0);
  return result;
}

// Largest |actual - expected|; infinity when sizes differ or any value is NaN. Equal infinities differ by 0.
inline double max_abs_error(const std::vector<double>& actual, const std::vector<double>& expected) {
  if (actual.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double worst = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    if (actual[i] == expected[i]) continue;
    const double gap = std::fabs(actual[i] - expected[i]);
    if (!(gap <= std::numeric_limits<double>::max())) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, gap);
  }
  return worst;
}

// ||actual - expected|| / ||expected||; infinity when sizes differ or a NaN is met. An all-zero expectation gives the
// absolute norm.
inline double relative_l2(const std::vector<double>& actual, const std::vector<double>& expected) {
  if (actual.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double gap = 0, norm = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    gap += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  const double result = norm > 0 ? std::sqrt(gap / norm) : std::sqrt(gap);
  return result <= std::numeric_limits<double>::max() ? result : std::numeric_limits<double>::infinity();
}

inline std::string worst_element(const std::vector<double>& actual, const std::vector<double>& expected) {
  std::ostringstream text;
  text.precision(9);
  if (actual.size() != expected.size()) {
    text << "sizes " << actual.size() << " and " << expected.size();
    return text.str();
  }
  size_t worst = 0;
  double gap = -1;
  for (size_t i = 0; i < actual.size(); ++i) {
    if (actual[i] == expected[i]) continue;
    const double one = std::fabs(actual[i] - expected[i]);
    if (!(one <= gap)) {
      worst = i;
      gap = one;
      if (one != one) break;
    }
  }
  if (!actual.empty())
    text << "worst at " << worst << " of " << actual.size() << ": " << actual[worst] << " against " << expected[worst];
  return text.str();
}

// Bits of all storage, padding included.
inline bool same_bits(const GuardedTensor& left, const GuardedTensor& right) {
  return left.memory().size() == right.memory().size() &&
         std::memcmp(left.memory().data(), right.memory().data(), left.memory().size()) == 0;
}
template <class T>
bool same_bits(const GuardedArray<T>& left, const GuardedArray<T>& right) {
  return left.count() == right.count() &&
         std::memcmp(left.data(), right.data(), static_cast<size_t>(left.count()) * sizeof(T)) == 0;
}

// Relative L2 distance between `gradient` and the five-point finite difference of f at x over the given coordinates
// (all when empty). Steps of 2^-6 suit functions that round their result to fp32; for pure double take 2^-10.
inline double gradient_error(const std::function<double(const std::vector<double>&)>& f, const std::vector<double>& x,
                             const std::vector<double>& gradient, double step = 0x1p-6,
                             const std::vector<size_t>& coordinates = {}) {
  std::vector<size_t> chosen = coordinates;
  if (chosen.empty()) {
    for (size_t i = 0; i < x.size(); ++i) chosen.push_back(i);
  }
  std::vector<double> analytic, numeric, point = x;
  for (size_t i : chosen) {
    const auto at = [&](double offset) {
      point[i] = x[i] + offset;
      const double value = f(point);
      point[i] = x[i];
      return value;
    };
    numeric.push_back((8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step));
    analytic.push_back(gradient[i]);
  }
  return relative_l2(analytic, numeric);
}

// sum(values * upstream): the scalar whose gradient a backward computes.
inline double dot(const std::vector<double>& values, const std::vector<double>& upstream) {
  double total = 0;
  for (size_t i = 0; i < values.size(); ++i) total += values[i] * upstream[i];
  return total;
}

struct TestContext {
  explicit TestContext(int threads = 1, Isa isa = detect_isa()) : pool(threads) {
    context.pool = &pool;
    context.scratch = &scratch;
    context.isa = isa;
  }
  TestContext(const TestContext&) = delete;
  TestContext& operator=(const TestContext&) = delete;
  operator Context&() { return context; }

  ThreadPool pool;
  Scratch scratch;
  Context context;
};

// Every instruction set this machine has, generic first.
inline std::vector<Isa> isas() {
  std::vector<Isa> list;
  for (const CpuPath& path : cpu_paths()) {
    if (!path.amx) list.insert(list.begin(), path.isa);
  }
  return list;
}

}  // namespace gavel::test

// Both sides std::vector<double>; print the measure and the worst element.
#define CHECK_RELATIVE_L2(actual, expected, tolerance)                                                              \
  do {                                                                                                              \
    const std::vector<double> gavel_actual = (actual), gavel_expected = (expected);                                 \
    const double gavel_error = ::gavel::test::relative_l2(gavel_actual, gavel_expected);                            \
    if (!(gavel_error <= (tolerance))) {                                                                            \
      std::ostringstream gavel_text;                                                                                \
      gavel_text << "relative L2 of " #actual " to " #expected " = " << gavel_error << " > " << (tolerance) << ", " \
                 << ::gavel::test::worst_element(gavel_actual, gavel_expected);                                     \
      ::gavel::test::fail(__FILE__, __LINE__, gavel_text.str());                                                    \
    }                                                                                                               \
  } while (false)

#define CHECK_MAX_ABS(actual, expected, tolerance)                                                                 \
  do {                                                                                                             \
    const std::vector<double> gavel_actual = (actual), gavel_expected = (expected);                                \
    const double gavel_error = ::gavel::test::max_abs_error(gavel_actual, gavel_expected);                         \
    if (!(gavel_error <= (tolerance))) {                                                                           \
      std::ostringstream gavel_text;                                                                               \
      gavel_text << "largest difference of " #actual " to " #expected " = " << gavel_error << " > " << (tolerance) \
                 << ", " << ::gavel::test::worst_element(gavel_actual, gavel_expected);                            \
      ::gavel::test::fail(__FILE__, __LINE__, gavel_text.str());                                                   \
    }                                                                                                              \
  } while (false)

// value <= limit; prints both; NaN never passes.
#define CHECK_LE(value, limit)                                                           \
  do {                                                                                   \
    const double gavel_value = (value), gavel_limit = (limit);                           \
    if (!(gavel_value <= gavel_limit)) {                                                 \
      std::ostringstream gavel_text;                                                     \
      gavel_text << #value " = " << gavel_value << ", expected at most " << gavel_limit; \
      ::gavel::test::fail(__FILE__, __LINE__, gavel_text.str());                         \
    }                                                                                    \
  } while (false)
