// One product as cuBLASLt sees it: column-major, c [rows, columns] = op(a) op(b) [+ bias down the rows] [+ what is in
// c0], sums in fp32. fp32 operands are not rounded to TF32.
#pragma once
#include "core/dtype.h"
#include "cuda/cublaslt.h"

namespace gavel::cuda {

struct LtShape {
  int64_t rows, columns, depth;
  bool transposed_a, transposed_b;  // a is [depth, rows], b [columns, depth]
  DType dtype, result;
  bool adds = false;
  const void* bias = nullptr;
  DType bias_dtype = DType::f32;
  int64_t leading_b = 0;  // 0: b's columns lie one behind the other
};

class LtMatmul {
 public:
  LtMatmul(const CublasLt& library, CublasLt::Opaque handle, const LtShape& shape);
  ~LtMatmul();
  LtMatmul(const LtMatmul&) = delete;
  LtMatmul& operator=(const LtMatmul&) = delete;

  /// The library's status of the first call that failed; 0: none.
  int status() const { return status_; }

  struct Limits {
    size_t workspace_bytes;
    uint32_t alignment = 256;                                                    // of every operand, bytes
    uint32_t reductions = CublasLt::kNoReduction | CublasLt::kReductionInFloat;  // of a depth that is cut
  };
  /// Algorithms by the library's own expectation, fastest first, at most `most`; how many there are.
  int propose(const Limits& limits, CublasLt::Proposal* proposals, int most);
  /// Whether the algorithm takes this shape with so much workspace.
  bool accepts(const CublasLt::Algorithm& algorithm, size_t workspace_bytes);
  /// Enqueued: `c` = the product + `c0`, which may be `c`. False where the library refuses.
  bool multiply(const CublasLt::Algorithm& algorithm, const void* a, const void* b, const void* c0, void* c,
                void* workspace, size_t workspace_bytes, void* stream);

 private:
  bool good(int status);
  const CublasLt& library_;
  const CublasLt::Opaque handle_;
  const bool adds_;
  CublasLt::Opaque description_ = nullptr, a_ = nullptr, b_ = nullptr, c_ = nullptr;
  int status_ = 0;
};

}  // namespace gavel::cuda
