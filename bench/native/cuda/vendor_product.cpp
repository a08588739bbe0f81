#include "bench/native/cuda/vendor_product.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <vector>

namespace gavel::bench {
namespace {

// The part of cublasLt.h that is used; its values and sizes are the library's stable binary interface.
using Opaque = void*;
constexpr int kReal32 = 0, kReal16Brain = 14, kCompute32 = 68, kAsIs = 0, kTransposed = 1;
constexpr int kDescribesTransposedA = 3, kDescribesTransposedB = 4, kPrefersWorkspaceBytes = 1;
constexpr int kMostAlgorithms = 16;
constexpr size_t kWorkspaceBytes = size_t{64} << 20;

struct Algorithm {
  uint64_t data[8];
};
struct Proposal {
  Algorithm algorithm;
  size_t workspace_bytes;
  int state;
  float waves;
  int reserved[4];
};
static_assert(sizeof(Proposal) == 96);

}  // namespace

struct VendorProduct::Library {
  int (*create)(Opaque*);
  int (*destroy)(Opaque);
  size_t (*get_version)();
  int (*describe)(Opaque*, int compute, int scale);
  int (*describe_set)(Opaque, int attribute, const void*, size_t);
  int (*describe_destroy)(Opaque);
  int (*layout)(Opaque*, int type, uint64_t rows, uint64_t columns, int64_t leading);
  int (*layout_destroy)(Opaque);
  int (*preference)(Opaque*);
  int (*preference_set)(Opaque, int attribute, const void*, size_t);
  int (*preference_destroy)(Opaque);
  int (*propose)(Opaque, Opaque, Opaque, Opaque, Opaque, Opaque, Opaque, int, Proposal*, int*);
  int (*multiply)(Opaque, Opaque, const void*, const void*, Opaque, const void*, Opaque, const void*, const void*,
                  Opaque, void*, Opaque, const Algorithm*, void*, size_t, void*);
  Opaque handle = nullptr;

  template <class Function>
  static bool find(void* library, const char* name, Function* function, std::string* error) {
    *function = reinterpret_cast<Function>(dlsym(library, name));
    if (*function == nullptr) *error = std::string("the library has no ") + name;
    return *function != nullptr;
  }
  ~Library() {
    if (handle != nullptr) destroy(handle);
  }
};

// Column-major, as the library has it: c [rows, columns] = op(a) op(b) summed over depth.
struct VendorProduct::Problem {
  int64_t rows, columns, depth;
  bool transposed_a, transposed_b;
  DType dtype, sums;
  bool adds;
};

std::unique_ptr<VendorProduct> VendorProduct::load(const std::string& file, std::string* error) {
  void* library = nullptr;
  for (const char* name : {file.c_str(), "libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"}) {
    if (library != nullptr || name[0] == '\0') continue;
    library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr && !file.empty()) break;
  }
  if (library == nullptr) {
    const char* why = dlerror();
    *error = why == nullptr ? "not found" : why;
    return nullptr;
  }
  std::unique_ptr<VendorProduct> made(new VendorProduct);
  made->library_ = std::make_unique<Library>();
  Library& l = *made->library_;
  const bool found = Library::find(library, "cublasLtCreate", &l.create, error) &&
                     Library::find(library, "cublasLtDestroy", &l.destroy, error) &&
                     Library::find(library, "cublasLtGetVersion", &l.get_version, error) &&
                     Library::find(library, "cublasLtMatmulDescCreate", &l.describe, error) &&
                     Library::find(library, "cublasLtMatmulDescSetAttribute", &l.describe_set, error) &&
                     Library::find(library, "cublasLtMatmulDescDestroy", &l.describe_destroy, error) &&
                     Library::find(library, "cublasLtMatrixLayoutCreate", &l.layout, error) &&
                     Library::find(library, "cublasLtMatrixLayoutDestroy", &l.layout_destroy, error) &&
                     Library::find(library, "cublasLtMatmulPreferenceCreate", &l.preference, error) &&
                     Library::find(library, "cublasLtMatmulPreferenceSetAttribute", &l.preference_set, error) &&
                     Library::find(library, "cublasLtMatmulPreferenceDestroy", &l.preference_destroy, error) &&
                     Library::find(library, "cublasLtMatmulAlgoGetHeuristic", &l.propose, error) &&
                     Library::find(library, "cublasLtMatmul", &l.multiply, error);
  if (!found) return nullptr;
  if (const int status = l.create(&l.handle); status != 0) {
    *error = "cublasLtCreate gave " + std::to_string(status);
    return nullptr;
  }
  made->version_ = std::to_string(l.get_version());
  return made;
}

VendorProduct::~VendorProduct() = default;

Timing VendorProduct::best(const Problem& p, Operands& operands, DeviceClock& clock, double seconds,
                           std::string* error) {
  Library& l = *library_;
  const int type = p.dtype == DType::bf16 ? kReal16Brain : kReal32,
            sums = p.sums == DType::bf16 ? kReal16Brain : kReal32;
  const int op_a = p.transposed_a ? kTransposed : kAsIs, op_b = p.transposed_b ? kTransposed : kAsIs;
  const int64_t rows_a = p.transposed_a ? p.depth : p.rows, rows_b = p.transposed_b ? p.columns : p.depth;
  const int64_t columns_a = p.transposed_a ? p.rows : p.depth, columns_b = p.transposed_b ? p.depth : p.columns;
  const Tensor a = operands.random({rows_a, columns_a}, p.dtype), b = operands.random({rows_b, columns_b}, p.dtype),
               c = operands.zeros({p.rows, p.columns}, p.sums);
  void* const workspace = operands.allocate(kWorkspaceBytes);
  if (!operands.status().ok()) {
    *error = operands.status().message;
    return {};
  }
  Opaque description = nullptr, layout_a = nullptr, layout_b = nullptr, layout_c = nullptr, preference = nullptr;
  std::array<Proposal, kMostAlgorithms> proposals{};
  int count = 0, status = 0;
  const auto good = [&](int result) { return (status = status != 0 ? status : result) == 0; };
  const bool proposed =
      good(l.describe(&description, kCompute32, kReal32)) &&
      good(l.describe_set(description, kDescribesTransposedA, &op_a, sizeof(op_a))) &&
      good(l.describe_set(description, kDescribesTransposedB, &op_b, sizeof(op_b))) &&
      good(l.layout(&layout_a, type, static_cast<uint64_t>(rows_a), static_cast<uint64_t>(columns_a), rows_a)) &&
      good(l.layout(&layout_b, type, static_cast<uint64_t>(rows_b), static_cast<uint64_t>(columns_b), rows_b)) &&
      good(l.layout(&layout_c, sums, static_cast<uint64_t>(p.rows), static_cast<uint64_t>(p.columns), p.rows)) &&
      good(l.preference(&preference)) &&
      good(l.preference_set(preference, kPrefersWorkspaceBytes, &kWorkspaceBytes, sizeof(kWorkspaceBytes))) &&
      good(l.propose(l.handle, description, layout_a, layout_b, layout_c, layout_c, preference, kMostAlgorithms,
                     proposals.data(), &count));
  const float one = 1.0f, beta = p.adds ? 1.0f : 0.0f;
  const auto call = [&](const Proposal& proposal) {
    return [&, algorithm = proposal.algorithm] {
      good(l.multiply(l.handle, description, &one, a.data, layout_a, b.data, layout_b, &beta, c.data, layout_c, c.data,
                      layout_c, &algorithm, workspace, kWorkspaceBytes, nullptr));
    };
  };
  Timing fastest;
  int chosen = -1;
  for (int i = 0; proposed && i < count; ++i) {
    const Proposal& proposal = proposals[static_cast<size_t>(i)];
    if (proposal.state != 0) continue;
    const Timing timing = clock.measure(call(proposal), seconds / 8, error);
    // An algorithm that the library refuses after all costs its own turn alone.
    if (status != 0 || timing.runs == 0) {
      status = 0;
      continue;
    }
    if (chosen < 0 || timing.seconds < fastest.seconds) {
      fastest = timing;
      chosen = i;
    }
  }
  if (chosen >= 0) fastest = clock.measure(call(proposals[static_cast<size_t>(chosen)]), seconds, error);
  if (chosen < 0 && error->empty()) *error = "cuBLASLt has no algorithm (status " + std::to_string(status) + ")";
  if (preference != nullptr) l.preference_destroy(preference);
  for (Opaque layout : {layout_a, layout_b, layout_c})
    if (layout != nullptr) l.layout_destroy(layout);
  if (description != nullptr) l.describe_destroy(description);
  return fastest;
}

// Row-major [m, n] is column-major [n, m].
Timing VendorProduct::forward(int64_t m, int64_t n, int64_t k, DType dtype, Operands& operands, DeviceClock& clock,
                              double seconds, std::string* error) {
  return best({n, m, k, true, false, dtype, dtype, false}, operands, clock, seconds, error);
}

Timing VendorProduct::backward(int64_t m, int64_t n, int64_t k, DType dtype, Operands& operands, DeviceClock& clock,
                               double seconds, std::string* error) {
  const Timing x = best({k, m, n, false, false, dtype, dtype, false}, operands, clock, seconds, error);
  const Timing weight = best({k, n, m, false, true, dtype, DType::f32, true}, operands, clock, seconds, error);
  return {x.seconds + weight.seconds, x.low + weight.low, x.high + weight.high, std::min(x.runs, weight.runs)};
}

}  // namespace gavel::bench
