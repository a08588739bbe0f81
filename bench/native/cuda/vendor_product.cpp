#include "bench/native/cuda/vendor_product.h"

#include <algorithm>
#include <array>

namespace gavel::bench {
namespace {

constexpr int kMostAlgorithms = 16;
constexpr size_t kWorkspaceBytes = size_t{64} << 20;

}  // namespace

std::unique_ptr<VendorProduct> VendorProduct::load(const std::string& file, std::string* error) {
  std::unique_ptr<VendorProduct> made(new VendorProduct);
  if (!cuda::load_cublaslt(file, &made->library_, error)) return nullptr;
  if (const int status = made->library_.create(&made->handle_); status != 0) {
    *error = "cublasLtCreate gave " + std::to_string(status);
    return nullptr;
  }
  made->version_ = std::to_string(made->library_.version());
  return made;
}

VendorProduct::~VendorProduct() {
  if (handle_ != nullptr) library_.destroy(handle_);
}

Timing VendorProduct::best(const cuda::LtShape& s, Operands& operands, DeviceClock& clock, double seconds,
                           std::string* error) {
  const Tensor a = operands.random({s.rows, s.depth}, s.dtype), b = operands.random({s.depth, s.columns}, s.dtype),
               c = operands.zeros({s.rows, s.columns}, s.result);
  void* const workspace = operands.allocate(kWorkspaceBytes);
  if (!operands.status().ok()) {
    *error = operands.status().message;
    return {};
  }
  std::array<cuda::CublasLt::Proposal, kMostAlgorithms> proposals{};
  cuda::LtMatmul asked(library_, handle_, s);
  const int count = asked.propose({kWorkspaceBytes}, proposals.data(), kMostAlgorithms);
  Timing fastest;
  const cuda::CublasLt::Algorithm* chosen = nullptr;
  // An algorithm that the library refuses after all costs its own turn alone.
  const auto measure = [&](const cuda::CublasLt::Algorithm& algorithm, double longest) {
    cuda::LtMatmul product(library_, handle_, s);
    const auto call = [&] {
      product.multiply(algorithm, a.data, b.data, c.data, c.data, workspace, kWorkspaceBytes, nullptr);
    };
    const Timing timing = clock.measure(call, longest, error);
    return product.status() == 0 ? timing : Timing{};
  };
  for (int i = 0; i < count; ++i) {
    const cuda::CublasLt::Algorithm& algorithm = proposals[static_cast<size_t>(i)].algorithm;
    const Timing timing = measure(algorithm, seconds / 8);
    if (timing.runs == 0 || (chosen != nullptr && timing.seconds >= fastest.seconds)) continue;
    fastest = timing;
    chosen = &algorithm;
  }
  if (chosen != nullptr) fastest = measure(*chosen, seconds);
  if (chosen == nullptr && error->empty())
    *error = "cuBLASLt has no algorithm (status " + std::to_string(asked.status()) + ")";
  return fastest;
}

// Row-major [m, n] is column-major [n, m].
Timing VendorProduct::forward(int64_t m, int64_t n, int64_t k, DType dtype, Operands& operands, DeviceClock& clock,
                              double seconds, std::string* error) {
  return best({n, m, k, true, false, dtype, dtype}, operands, clock, seconds, error);
}

Timing VendorProduct::backward(int64_t m, int64_t n, int64_t k, DType dtype, Operands& operands, DeviceClock& clock,
                               double seconds, std::string* error) {
  const Timing x = best({k, m, n, false, false, dtype, dtype}, operands, clock, seconds, error);
  const Timing weight = best({k, n, m, false, true, dtype, DType::f32, true}, operands, clock, seconds, error);
  return {x.seconds + weight.seconds, x.low + weight.low, x.high + weight.high, std::min(x.runs, weight.runs)};
}

}  // namespace gavel::bench
