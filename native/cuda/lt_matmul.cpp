#include "cuda/lt_matmul.h"

namespace gavel::cuda {
namespace {

int type_of(DType dtype) { return dtype == DType::bf16 ? CublasLt::kReal16Brain : CublasLt::kReal32; }

}  // namespace

LtMatmul::LtMatmul(const CublasLt& library, CublasLt::Opaque handle, const LtShape& shape)
    : library_(library), handle_(handle), adds_(shape.adds) {
  const auto set = [&](int attribute, const auto& value) {
    return good(library_.describe_set(description_, attribute, &value, sizeof(value)));
  };
  const auto layout = [&](CublasLt::Opaque* made, DType dtype, int64_t rows, int64_t columns, int64_t leading = 0) {
    return good(library_.layout(made, type_of(dtype), static_cast<uint64_t>(rows), static_cast<uint64_t>(columns),
                                leading == 0 ? rows : leading));
  };
  const auto& s = shape;
  if (!good(library_.describe(&description_, CublasLt::kCompute32, CublasLt::kReal32)) ||
      !set(CublasLt::kDescribesTransposedA, s.transposed_a ? CublasLt::kTransposed : CublasLt::kAsIs) ||
      !set(CublasLt::kDescribesTransposedB, s.transposed_b ? CublasLt::kTransposed : CublasLt::kAsIs) ||
      !layout(&a_, s.dtype, s.transposed_a ? s.depth : s.rows, s.transposed_a ? s.rows : s.depth) ||
      !layout(&b_, s.dtype, s.transposed_b ? s.columns : s.depth, s.transposed_b ? s.depth : s.columns, s.leading_b) ||
      !layout(&c_, s.result, s.rows, s.columns) || s.bias == nullptr)
    return;
  set(CublasLt::kDescribesEpilogue, CublasLt::kBiasEpilogue) && set(CublasLt::kDescribesBias, s.bias) &&
      set(CublasLt::kDescribesBiasType, type_of(s.bias_dtype));
}

LtMatmul::~LtMatmul() {
  for (CublasLt::Opaque layout : {a_, b_, c_})
    if (layout != nullptr) library_.layout_destroy(layout);
  if (description_ != nullptr) library_.describe_destroy(description_);
}

bool LtMatmul::good(int status) {
  if (status_ == 0) status_ = status;
  return status_ == 0;
}

int LtMatmul::propose(const Limits& limits, CublasLt::Proposal* proposals, int most) {
  CublasLt::Opaque preference = nullptr;
  if (status_ != 0 || !good(library_.preference(&preference))) return 0;
  const auto set = [&](int attribute, const auto& value) {
    return good(library_.preference_set(preference, attribute, &value, sizeof(value)));
  };
  bool ready = set(CublasLt::kPrefersWorkspaceBytes, static_cast<uint64_t>(limits.workspace_bytes)) &&
               set(CublasLt::kPrefersReductions, limits.reductions);
  for (int operand = 0; operand < 4; ++operand)
    ready = ready && set(CublasLt::kPrefersAlignmentA + operand, limits.alignment);
  int found = 0;
  ready = ready && good(library_.propose(handle_, description_, a_, b_, c_, c_, preference, most, proposals, &found));
  library_.preference_destroy(preference);
  int usable = 0;
  for (int i = 0; ready && i < found; ++i)
    if (proposals[i].state == 0) proposals[usable++] = proposals[i];
  return usable;
}

bool LtMatmul::accepts(const CublasLt::Algorithm& algorithm, size_t workspace_bytes) {
  CublasLt::Proposal checked{};
  return status_ == 0 && library_.check(handle_, description_, a_, b_, c_, c_, &algorithm, &checked) == 0 &&
         checked.workspace_bytes <= workspace_bytes;
}

bool LtMatmul::multiply(const CublasLt::Algorithm& algorithm, const void* a, const void* b, const void* c0, void* c,
                        void* workspace, size_t workspace_bytes, void* stream) {
  const float one = 1.0f, beta = adds_ ? 1.0f : 0.0f;
  return status_ == 0 && good(library_.multiply(handle_, description_, &one, a, a_, b, b_, &beta, c0, c_, c, c_,
                                                &algorithm, workspace, workspace_bytes, stream));
}

}  // namespace gavel::cuda
