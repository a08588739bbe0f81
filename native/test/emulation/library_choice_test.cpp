// Which of a library's algorithms the plugin lets run: those with the bits of its own kernels, and none in a captured
// stream before that is known.
#include "test/cuda/device.h"
#include "test/cuda/library_case.h"
#include "test/emulation/emulated_cublaslt.h"

namespace gavel::test {
namespace {

using emulation::LibraryAlgorithm;

struct Offer {
  explicit Offer(std::vector<LibraryAlgorithm> algorithms) {
    emulation::offer_library(std::move(algorithms));
    emulation::library_products();
  }
  ~Offer() { emulation::offer_library({}); }
  Offer(const Offer&) = delete;
  Offer& operator=(const Offer&) = delete;
};

// Products of the library in each of five calls of a shape that no other test has, forward and gradient of x together.
std::vector<int> products_of_calls(DType dtype, int64_t n, Epilogue epilogue) {
  const LibraryCase one(dtype, {1100, n, 64}, epilogue);
  std::vector<int> counts;
  for (int call = 0; call < 5; ++call) {
    CHECK(one.many_equal_few());
    counts.push_back(emulation::library_products());
  }
  return counts;
}

}  // namespace

TEST("cuda library choice: an algorithm of equal bits is tried three times, then serves") {
  const Offer offer({LibraryAlgorithm::chain});
  int64_t n = 88;
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (const Epilogue epilogue : {Epilogue::none, Epilogue::bias, Epilogue::residual}) {
      const uint64_t before = device_backend().library_products();
      CHECK(products_of_calls(dtype, n += 8, epilogue) == std::vector<int>(5, 2));
      CHECK_EQ(device_backend().library_products() - before, uint64_t{4});  // of the last two calls
    }
  }
}

TEST("cuda library choice: other bits, for any number of rows, and refusals lead to the next, and then to none") {
  {
    const Offer offer({LibraryAlgorithm::backwards, LibraryAlgorithm::refused, LibraryAlgorithm::chain});
    // Tried and found different; refused; tried and served.
    CHECK(products_of_calls(DType::f32, 168, Epilogue::none) == (std::vector<int>{2, 0, 2, 2, 2}));
  }
  {
    const Offer offer({LibraryAlgorithm::odd_rows});
    CHECK(products_of_calls(DType::f32, 176, Epilogue::none) == (std::vector<int>{2, 2, 0, 0, 0}));
  }
}

TEST("cuda library choice: two epilogues at once stay with our own kernel") {
  const Offer offer({LibraryAlgorithm::chain});
  const LibraryCase one(DType::bf16, {1100, 184, 64}, Epilogue::both);
  CHECK(one.many_equal_few());
  CHECK_EQ(emulation::library_products(), 1);  // the gradient of x
}

TEST("cuda library choice: the fastest mode takes the first algorithm at once, the gradient of a weight too") {
  const Offer offer({LibraryAlgorithm::backwards});
  const FastestMode fastest(1);
  TestContext context;
  for (DType dtype : {DType::f32, DType::bf16}) {
    check_linear(context, kDeviceLinear, dtype, {1100, 192, 72}, 60);
    // check_linear asks for bias and residual at once, and for the gradients twice.
    CHECK_EQ(emulation::library_products(), 4);
  }
}

TEST("cuda library choice: few rows and odd widths never come to it") {
  const Offer offer({LibraryAlgorithm::chain});
  for (const auto& shape : {std::array<int64_t, 3>{1023, 64, 64}, {1030, 68, 64}, {1030, 64, 63}, {1030, 56, 64}}) {
    const LibraryCase one(DType::bf16, shape, Epilogue::none);
    one.compute(0, shape[0]);
    CHECK_EQ(emulation::library_products(), 0);
  }
}

}  // namespace gavel::test
