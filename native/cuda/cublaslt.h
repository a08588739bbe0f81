// The part of cuBLASLt that is used, found at run time: no header and no link dependency. Types and values are the
// library's stable binary interface (cublasLt.h of versions 12 and 13). Matrices are column-major there.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace gavel::cuda {

struct CublasLt {
  using Opaque = void*;
  static constexpr int kReal32 = 0, kReal16Brain = 14, kCompute32 = 68;
  static constexpr int kAsIs = 0, kTransposed = 1, kBiasEpilogue = 4;
  static constexpr int kDescribesTransposedA = 3, kDescribesTransposedB = 4, kDescribesEpilogue = 7;
  static constexpr int kDescribesBias = 8, kDescribesBiasType = 26;
  static constexpr int kPrefersWorkspaceBytes = 1, kPrefersReductions = 3, kPrefersAlignmentA = 5;
  static constexpr uint32_t kNoReduction = 0, kReductionInFloat = 2;

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

  int (*create)(Opaque*) = nullptr;
  int (*destroy)(Opaque) = nullptr;
  size_t (*version)() = nullptr;
  int (*describe)(Opaque*, int compute, int scale) = nullptr;
  int (*describe_set)(Opaque, int attribute, const void*, size_t) = nullptr;
  int (*describe_destroy)(Opaque) = nullptr;
  int (*layout)(Opaque*, int type, uint64_t rows, uint64_t columns, int64_t leading) = nullptr;
  int (*layout_destroy)(Opaque) = nullptr;
  int (*preference)(Opaque*) = nullptr;
  int (*preference_set)(Opaque, int attribute, const void*, size_t) = nullptr;
  int (*preference_destroy)(Opaque) = nullptr;
  int (*propose)(Opaque, Opaque, Opaque, Opaque, Opaque, Opaque, Opaque, int, Proposal*, int*) = nullptr;
  int (*check)(Opaque, Opaque, Opaque, Opaque, Opaque, Opaque, const Algorithm*, Proposal*) = nullptr;
  int (*multiply)(Opaque, Opaque, const void*, const void*, Opaque, const void*, Opaque, const void*, const void*,
                  Opaque, void*, Opaque, const Algorithm*, void*, size_t, void*) = nullptr;
};

/// Fills `library` from `file`, or where that is empty from what the loader finds. False with `error`; never unloaded.
bool load_cublaslt(const std::string& file, CublasLt* library, std::string* error);

/// The library of this process, looked for once: the file that the environment variable GAVEL_CUBLASLT names ('off':
/// none), else the loader's. Null where there is none, with the reason where `why` is given.
const CublasLt* cublaslt(std::string* why = nullptr);

/// Its version as "13.0.2", or "none: " and the reason.
void cublaslt_version(char* text, size_t size);

}  // namespace gavel::cuda
