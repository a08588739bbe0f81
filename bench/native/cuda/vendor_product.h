// The vendor's matrix products (cuBLASLt), found at run time. What our own are measured against: the fastest of the
// algorithms its heuristics propose.
#pragma once
#include <memory>
#include <string>

#include "bench/native/cuda/device_clock.h"
#include "bench/native/cuda/operands.h"
#include "cuda/lt_matmul.h"

namespace gavel::bench {

class VendorProduct {
 public:
  /// `file`: a path, or empty for the loader's. Null with `error` where it does not load.
  static std::unique_ptr<VendorProduct> load(const std::string& file, std::string* error);
  ~VendorProduct();
  VendorProduct(const VendorProduct&) = delete;
  VendorProduct& operator=(const VendorProduct&) = delete;

  /// x [m, k] weight [n, k]^T, rows of plain row-major matrices; bf16 or fp32 (no TF32), sums in fp32. Fresh random
  /// operands of its own.
  Timing forward(int64_t m, int64_t n, int64_t k, DType dtype, Operands& operands, DeviceClock& clock, double seconds,
                 std::string* error);
  /// Both gradients of it, the weight's added to fp32.
  Timing backward(int64_t m, int64_t n, int64_t k, DType dtype, Operands& operands, DeviceClock& clock, double seconds,
                  std::string* error);
  const std::string& version() const { return version_; }

 private:
  VendorProduct() = default;
  Timing best(const cuda::LtShape& shape, Operands& operands, DeviceClock& clock, double seconds, std::string* error);
  cuda::CublasLt library_;
  cuda::CublasLt::Opaque handle_ = nullptr;
  std::string version_;
};

}  // namespace gavel::bench
