#include "test/emulation/emulated_cublaslt.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>

#include "core/dtype.h"
#include "core/threads.h"
#include "cuda/cublaslt.h"
#include "test/emulation/device_memory.h"

namespace emulation {
namespace {

using gavel::cuda::CublasLt;
using Opaque = CublasLt::Opaque;

std::vector<LibraryAlgorithm> offered;
int products = 0;

struct Description {
  int transposed_a = 0, transposed_b = 0, epilogue = 1, bias_type = 0;
  const void* bias = nullptr;
};
struct MatrixLayout {
  int type = 0;
  int64_t rows = 0, columns = 0, leading = 0;
};
struct Preference {
  uint64_t workspace_bytes = 0;
};

float load(const void* data, int type, int64_t index) {
  if (type == CublasLt::kReal32) return static_cast<const float*>(data)[index];
  return gavel::bf16_to_float(static_cast<const gavel::bf16_t*>(data)[index]);
}

struct Call {
  Description description;
  MatrixLayout a, b, c, d;
  const void *pa, *pb, *pc;
  void* pd;
  float beta;
  LibraryAlgorithm algorithm;

  float left(int64_t i, int64_t k) const {
    return load(pa, a.type, description.transposed_a != 0 ? i * a.leading + k : k * a.leading + i);
  }
  float right(int64_t k, int64_t j) const {
    return load(pb, b.type, description.transposed_b != 0 ? k * b.leading + j : j * b.leading + k);
  }
  void run() const {
    const gavel::FlushDenormals flush;
    const int64_t depth = description.transposed_a != 0 ? a.rows : a.columns;
    const bool reversed =
        algorithm == LibraryAlgorithm::backwards || (algorithm == LibraryAlgorithm::odd_rows && d.columns % 2 == 1);
    for (int64_t j = 0; j < d.columns; ++j) {
      for (int64_t i = 0; i < d.rows; ++i) {
        float sum = 0.0f;
        for (int64_t at = 0; at < depth; ++at) {
          const int64_t k = reversed ? depth - 1 - at : at;
          sum = std::fmaf(left(i, k), right(k, j), sum);
        }
        if (description.epilogue == CublasLt::kBiasEpilogue) sum += load(description.bias, description.bias_type, i);
        if (beta != 0.0f) sum += beta * load(pc, c.type, j * c.leading + i);
        if (d.type == CublasLt::kReal32) {
          static_cast<float*>(pd)[j * d.leading + i] = sum;
        } else {
          static_cast<gavel::bf16_t*>(pd)[j * d.leading + i] = gavel::float_to_bf16(sum);
        }
      }
    }
  }
};

template <class T>
int make(Opaque* made) {
  *made = new T;
  return 0;
}
template <class T>
int destroy(Opaque object) {
  delete static_cast<T*>(object);
  return 0;
}

int describe_set(Opaque object, int attribute, const void* value, size_t) {
  Description& d = *static_cast<Description*>(object);
  switch (attribute) {
    case CublasLt::kDescribesTransposedA:
      std::memcpy(&d.transposed_a, value, sizeof(int));
      return 0;
    case CublasLt::kDescribesTransposedB:
      std::memcpy(&d.transposed_b, value, sizeof(int));
      return 0;
    case CublasLt::kDescribesEpilogue:
      std::memcpy(&d.epilogue, value, sizeof(int));
      return 0;
    case CublasLt::kDescribesBias:
      std::memcpy(&d.bias, value, sizeof(void*));
      return 0;
    case CublasLt::kDescribesBiasType:
      std::memcpy(&d.bias_type, value, sizeof(int));
      return 0;
    default:
      return 7;
  }
}

int layout(Opaque* made, int type, uint64_t rows, uint64_t columns, int64_t leading) {
  *made = new MatrixLayout{type, static_cast<int64_t>(rows), static_cast<int64_t>(columns), leading};
  return 0;
}

// Shapes that do not fit together, which the library refuses too.
bool fits(const Description& d, const MatrixLayout& a, const MatrixLayout& b, const MatrixLayout& c) {
  const int64_t rows = d.transposed_a != 0 ? a.columns : a.rows, depth = d.transposed_a != 0 ? a.rows : a.columns;
  const int64_t columns = d.transposed_b != 0 ? b.rows : b.columns;
  return rows == c.rows && columns == c.columns && depth == (d.transposed_b != 0 ? b.columns : b.rows) &&
         a.leading >= a.rows && b.leading >= b.rows && c.leading >= c.rows && a.type == b.type;
}

int propose(Opaque, Opaque description, Opaque a, Opaque b, Opaque c, Opaque, Opaque, int most,
            CublasLt::Proposal* proposals, int* count) {
  if (!fits(*static_cast<Description*>(description), *static_cast<MatrixLayout*>(a), *static_cast<MatrixLayout*>(b),
            *static_cast<MatrixLayout*>(c)))
    return 7;
  *count = 0;
  for (const LibraryAlgorithm algorithm : offered) {
    if (*count == most) break;
    CublasLt::Proposal& proposal = proposals[(*count)++];
    proposal = {};
    proposal.algorithm.data[0] = static_cast<uint64_t>(algorithm);
  }
  return 0;
}

int check(Opaque, Opaque description, Opaque a, Opaque b, Opaque c, Opaque, const CublasLt::Algorithm* algorithm,
          CublasLt::Proposal* proposal) {
  *proposal = {};
  const bool good = fits(*static_cast<Description*>(description), *static_cast<MatrixLayout*>(a),
                         *static_cast<MatrixLayout*>(b), *static_cast<MatrixLayout*>(c));
  return good && algorithm->data[0] != static_cast<uint64_t>(LibraryAlgorithm::refused) ? 0 : 15;
}

int multiply(Opaque, Opaque description, const void* alpha, const void* pa, Opaque a, const void* pb, Opaque b,
             const void* beta, const void* pc, Opaque c, void* pd, Opaque d, const CublasLt::Algorithm* algorithm,
             void*, size_t, void* stream) {
  const Call call{*static_cast<Description*>(description),
                  *static_cast<MatrixLayout*>(a),
                  *static_cast<MatrixLayout*>(b),
                  *static_cast<MatrixLayout*>(c),
                  *static_cast<MatrixLayout*>(d),
                  pa,
                  pb,
                  pc,
                  pd,
                  *static_cast<const float*>(beta),
                  static_cast<LibraryAlgorithm>(algorithm->data[0])};
  if (*static_cast<const float*>(alpha) != 1.0f || !fits(call.description, call.a, call.b, call.d)) return 7;
  for (const void* address : {pa, pb, pc, static_cast<const void*>(pd), call.description.bias}) check_address(address);
  enqueue([call] { call.run(); }, stream);
  ++products;
  return 0;
}

const CublasLt& table() {
  static const CublasLt made = [] {
    CublasLt library;
    library.create = make<int>;
    library.destroy = destroy<int>;
    library.version = [] { return size_t{130000}; };
    library.describe = [](Opaque* object, int, int) { return make<Description>(object); };
    library.describe_set = describe_set;
    library.describe_destroy = destroy<Description>;
    library.layout = layout;
    library.layout_destroy = destroy<MatrixLayout>;
    library.preference = make<Preference>;
    library.preference_set = [](Opaque, int, const void*, size_t) { return 0; };
    library.preference_destroy = destroy<Preference>;
    library.propose = propose;
    library.check = check;
    library.multiply = multiply;
    return library;
  }();
  return made;
}

}  // namespace

void offer_library(std::vector<LibraryAlgorithm> algorithms) { offered = std::move(algorithms); }

int library_products() {
  const int count = products;
  products = 0;
  return count;
}

}  // namespace emulation

namespace gavel::cuda {

const CublasLt* cublaslt(std::string* why) {
  if (why != nullptr) *why = "the emulation offers none";
  return emulation::offered.empty() ? nullptr : &emulation::table();
}

}  // namespace gavel::cuda
