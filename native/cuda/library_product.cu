#include "cuda/library_product.cuh"

#include <array>
#include <atomic>
#include <mutex>

#include "cuda/elements.cuh"
#include "cuda/lt_matmul.h"
#include "cuda/runtime.h"

namespace gavel::cuda {
namespace {

constexpr int64_t kLeastRows = 1024, kLeastSide = 64, kMostWeightBytes = int64_t{256} << 20;
constexpr int64_t kProposedRows = 4096;  // that the library is asked about
constexpr size_t kWorkspaceBytes = size_t{32} << 20;
constexpr int64_t kSumsBytes = int64_t{64} << 20;  // of a weight's gradient before they are added
constexpr std::array<int64_t, 3> kTrialRows = {1024, 1021, 517};
constexpr int kMostCandidates = 16, kThreads = 256;

constexpr int64_t size_of(DType dtype) { return static_cast<int64_t>(dtype_size(dtype)); }

// A packed matrix [n, words] to rows, by words of a pair of bf16 or one fp32: 32 x 32 of them a block.
__global__ void __launch_bounds__(kThreads)
    unpack_kernel(const uint32_t* packed, uint32_t* rows, int64_t n, int64_t words) {
  __shared__ uint32_t tile[32][33];
  const int line = static_cast<int>(threadIdx.x) >> 3, place = (static_cast<int>(threadIdx.x) & 7) * 4;
  const int64_t step0 = int64_t{blockIdx.x} * 32, row0 = int64_t{blockIdx.y} * 32;
  if (step0 + line < words) {
    const uint4 four = *reinterpret_cast<const uint4*>(packed + row0 * words + (step0 + line) * 32 + place);
    tile[line][place] = four.x;
    tile[line][place + 1] = four.y;
    tile[line][place + 2] = four.z;
    tile[line][place + 3] = four.w;
  }
  __syncthreads();
  if (row0 + line < n && step0 + place < words)
    __stwb(reinterpret_cast<uint4*>(rows + (row0 + line) * words + step0 + place),
           uint4{tile[place][line], tile[place + 1][line], tile[place + 2][line], tile[place + 3][line]});
}

// Adds rows [n, k] to a packed gradient, kPairs: in the order of a bf16 weight. 32 x 32 elements a block.
template <bool kPairs>
__global__ void __launch_bounds__(kThreads) add_rows_kernel(float* packed, const float* rows, int64_t n, int64_t k) {
  __shared__ float tile[32][33];
  const int line = static_cast<int>(threadIdx.x) >> 3, place = (static_cast<int>(threadIdx.x) & 7) * 4;
  const int64_t column0 = int64_t{blockIdx.x} * 32, row0 = int64_t{blockIdx.y} * 32;
  float4 four{0.0f, 0.0f, 0.0f, 0.0f};
  if (row0 + line < n && column0 + place < k)
    four = *reinterpret_cast<const float4*>(rows + (row0 + line) * k + column0 + place);
  tile[line][place] = four.x;
  tile[line][place + 1] = four.y;
  tile[line][place + 2] = four.z;
  tile[line][place + 3] = four.w;
  __syncthreads();
  const int pair = static_cast<int>(threadIdx.x) >> 4, row = (static_cast<int>(threadIdx.x) & 15) * 2;
  if (column0 + (kPairs ? 2 * pair : line) >= k) return;
  float4* const to = reinterpret_cast<float4*>(packed + row0 * k + column0 * 32) + threadIdx.x;
  const float4 old = *to;
  if constexpr (kPairs) {
    *to = float4{__fadd_rn(old.x, tile[row][2 * pair]), __fadd_rn(old.y, tile[row][2 * pair + 1]),
                 __fadd_rn(old.z, tile[row + 1][2 * pair]), __fadd_rn(old.w, tile[row + 1][2 * pair + 1])};
  } else {
    *to = float4{__fadd_rn(old.x, tile[place][line]), __fadd_rn(old.y, tile[place + 1][line]),
                 __fadd_rn(old.z, tile[place + 2][line]), __fadd_rn(old.w, tile[place + 3][line])};
  }
}

// Rows of a weight's gradient that are made at a time.
int64_t piece_of(int64_t k) { return std::max<int64_t>(kSumsBytes / 4 / k / 32 * 32, 32); }

struct CountDifferent {
  const uint32_t *left, *right;
  int32_t* count;
  __device__ void operator()(int64_t i) const {
    if (left[i] != right[i]) atomicAdd(count, int32_t{1});
  }
};

std::atomic<uint64_t> served{0};
std::mutex mutex;  // of all that follows

// One a device; null where the library makes none.
CublasLt::Opaque handle_of(int32_t device) {
  static std::array<CublasLt::Opaque, 64> handles{};
  CublasLt::Opaque& handle = handles[static_cast<size_t>(device) % handles.size()];
  if (handle == nullptr && cublaslt()->create(&handle) != 0) handle = nullptr;
  return handle;
}

LtShape shape_of(const LibraryCall& c, int64_t rows) {
  LtShape shape{c.n, rows, c.k, true, false, c.dtype, c.dtype, c.added != nullptr, c.bias, c.bias_dtype};
  if (c.kind == ProductKind::grad_x) shape = {c.k, rows, c.n, false, false, c.dtype, c.dtype, c.added != nullptr};
  if (c.kind == ProductKind::grad_weight) shape = {c.k, c.n, rows, false, true, c.dtype, DType::f32};
  return shape;
}

// Bytes of a row of the result.
int64_t row_bytes(const LibraryCall& c) { return (c.kind == ProductKind::forward ? c.n : c.k) * size_of(c.dtype); }

bool considered(const Launch& launch, const LibraryCall& c) {
  return c.rows >= kLeastRows && c.n >= kLeastSide && c.k >= kLeastSide && c.n % 8 == 0 && c.k % 8 == 0 &&
         c.n * c.k * size_of(c.dtype) <= kMostWeightBytes && (c.bias == nullptr || c.added == nullptr) &&
         (c.kind != ProductKind::grad_weight || launch.fastest()) && cublaslt() != nullptr;
}

}  // namespace

// What is known of the algorithms for one kind of call.
struct LibraryProduct::Standing {
  int32_t device;
  Exactness exactness;
  ProductKind kind;
  DType dtype;
  bool adds;
  int32_t bias;  // 0: none, else 1 + its dtype
  int64_t n, k;

  std::array<CublasLt::Algorithm, kMostCandidates> candidates{};
  int count = -1;  // -1: the library was not asked yet
  int current = 0;
  size_t passed = 0;  // trials of the current one

  bool barred() const { return count >= 0 && current >= count; }
  bool trusted() const { return current < count && (exactness == Exactness::fastest || passed == kTrialRows.size()); }
  void refuse() {
    ++current;
    passed = 0;
  }
};

// Null when the table is full: our own kernel serves.
LibraryProduct::Standing* LibraryProduct::standing_of(const Launch& launch, const LibraryCall& c) {
  static std::array<Standing, 512> known{};
  static size_t count = 0;
  const int32_t bias = c.bias == nullptr ? 0 : 1 + static_cast<int32_t>(c.bias_dtype);
  const Standing wanted{
      launch.place().device, launch.place().exactness, c.kind, c.dtype, c.added != nullptr, bias, c.n, c.k};
  const auto same = [&](const Standing& one) {
    return one.device == wanted.device && one.exactness == wanted.exactness && one.kind == wanted.kind &&
           one.dtype == wanted.dtype && one.adds == wanted.adds && one.bias == wanted.bias && one.n == wanted.n &&
           one.k == wanted.k;
  };
  for (size_t i = 0; i < count; ++i)
    if (same(known[i])) return &known[i];
  if (count == known.size()) return nullptr;
  known[count] = wanted;
  return &known[count++];
}

LibraryProduct::LibraryProduct(Launch& launch, const LibraryCall& call) : launch_(launch), call_(call) {
  if (!considered(launch, call)) return;
  const std::lock_guard<std::mutex> lock(mutex);
  standing_ = standing_of(launch, call);
  const bool gradient = call.kind == ProductKind::grad_weight;
  rows_ = launch.workspace<uint8_t>(gradient ? piece_of(call.k) * call.k * 4 : call.n * call.k * size_of(call.dtype));
  workspace_ = launch.workspace<uint8_t>(kWorkspaceBytes);
  if (launch.fastest()) return;
  trial_ = launch.workspace<uint8_t>(kTrialRows[0] * row_bytes(call));
  different_ = launch.workspace<int32_t>(1);
}

bool LibraryProduct::run() {
  const bool placed = aligned(call_.left) && aligned(call_.right) && aligned(call_.out) && aligned(call_.added);
  if (standing_ == nullptr || launch_.measuring() || !launch_.ok() || !placed) return false;
  const std::lock_guard<std::mutex> lock(mutex);
  if (standing_->count < 0 && !propose()) return false;
  if (standing_->barred()) return false;
  if (call_.kind == ProductKind::grad_weight || standing_->trusted()) {
    const bool serves =
        call_.kind == ProductKind::grad_weight ? add_gradient() : multiply(0, call_.rows, call_.added, call_.out);
    served += serves ? 1 : 0;
    return serves;
  }
  // A trial waits for the device, which a captured stream cannot.
  if (launch_.place().stream != nullptr) return false;
  const int64_t width = row_bytes(call_);
  tried_ = standing_->current;
  trial_rows_ = kTrialRows[standing_->passed];
  trial_row_ = (call_.rows - trial_rows_) * static_cast<int64_t>(standing_->passed) / 2;
  const uint8_t* const added = static_cast<const uint8_t*>(call_.added);
  if (!multiply(trial_row_, trial_rows_, added == nullptr ? nullptr : added + trial_row_ * width, trial_)) {
    standing_->refuse();
    trial_rows_ = 0;
  }
  return false;
}

void LibraryProduct::judge() {
  if (trial_rows_ == 0 || !launch_.ok()) return;
  const int64_t words = row_bytes(call_) / 4;
  launch_.zero(different_, sizeof(*different_));
  for_elements<1>(launch_,
                  CountDifferent{reinterpret_cast<const uint32_t*>(call_.out) + trial_row_ * words,
                                 reinterpret_cast<const uint32_t*>(trial_), different_},
                  trial_rows_ * words);
  int32_t different = -1;
  copy_to_host(&launch_.place(), &different, different_, sizeof(different), &launch_.status());
  synchronize(&launch_.place(), &launch_.status());
  if (!launch_.ok()) return;
  const std::lock_guard<std::mutex> lock(mutex);
  // Another engine may have judged it meanwhile.
  if (tried_ != standing_->current || standing_->trusted()) return;
  if (different == 0) {
    ++standing_->passed;
  } else {
    standing_->refuse();
  }
}

bool LibraryProduct::propose() {
  const CublasLt::Opaque handle = handle_of(launch_.place().device);
  standing_->count = 0;
  if (handle == nullptr) return false;
  LtMatmul product(*cublaslt(), handle, shape_of(call_, kProposedRows));
  std::array<CublasLt::Proposal, kMostCandidates> proposals{};
  // A depth that is cut has other bits than ours.
  const uint32_t reductions =
      launch_.fastest() ? CublasLt::kNoReduction | CublasLt::kReductionInFloat : CublasLt::kNoReduction;
  standing_->count = product.propose({kWorkspaceBytes, 16, reductions}, proposals.data(), kMostCandidates);
  for (size_t i = 0; i < proposals.size(); ++i) standing_->candidates[i] = proposals[i].algorithm;
  return standing_->count > 0;
}

bool LibraryProduct::multiply(int64_t row0, int64_t rows, const void* added, void* out) {
  const int64_t columns = call_.kind == ProductKind::forward ? call_.k : call_.n;
  const uint8_t* const left = static_cast<const uint8_t*>(call_.left) + row0 * columns * size_of(call_.dtype);
  const CublasLt::Algorithm& algorithm = standing_->candidates[static_cast<size_t>(standing_->current)];
  LtMatmul product(*cublaslt(), handle_of(launch_.place().device), shape_of(call_, rows));
  if (!product.accepts(algorithm, kWorkspaceBytes)) return false;
  unpack();
  return enqueued(product.multiply(algorithm, rows_, left, added == nullptr ? out : added, out, workspace_,
                                   kWorkspaceBytes, launch_.place().stream));
}

// By pieces of whole panels, so that their sums stay small. All of them or none: an added piece cannot be taken back.
bool LibraryProduct::add_gradient() {
  const CublasLt::Algorithm& algorithm = standing_->candidates[static_cast<size_t>(standing_->current)];
  const int64_t piece = piece_of(call_.k), last = call_.n % piece;
  const auto product_of = [&](int64_t n) {
    LtShape shape = shape_of(call_, call_.rows);
    shape.columns = n;
    shape.leading_b = call_.n;
    return LtMatmul(*cublaslt(), handle_of(launch_.place().device), shape);
  };
  if (call_.n >= piece && !product_of(piece).accepts(algorithm, kWorkspaceBytes)) return false;
  if (last != 0 && !product_of(last).accepts(algorithm, kWorkspaceBytes)) return false;
  const auto* const grad_out = static_cast<const uint8_t*>(call_.left);
  float* const sums = reinterpret_cast<float*>(rows_);
  for (int64_t n0 = 0; n0 < call_.n; n0 += piece) {
    const int64_t n = std::min(piece, call_.n - n0);
    if (!enqueued(product_of(n).multiply(algorithm, call_.right, grad_out + n0 * size_of(call_.dtype), sums, sums,
                                         workspace_, kWorkspaceBytes, launch_.place().stream)))
      break;
    float* const packed = static_cast<float*>(call_.out) + n0 * call_.k;
    const dim3 grid = blocks(divide_up(call_.k, 32), divide_up(n, 32));
    const auto kernel = call_.dtype == DType::bf16 ? add_rows_kernel<true> : add_rows_kernel<false>;
    launch_.run(kernel, grid, kThreads, 0, packed, static_cast<const float*>(sums), n, call_.k);
  }
  return true;
}

bool LibraryProduct::enqueued(bool accepted) {
  if (!accepted && launch_.ok())
    launch_.status().set(Code::internal, "Expected cuBLASLt to run a product that it accepted but it refused.");
  return accepted;
}

void LibraryProduct::unpack() {
  const int64_t words = call_.k * size_of(call_.dtype) / 4;
  launch_.run(unpack_kernel, blocks(divide_up(words, 32), divide_up(call_.n, 32)), kThreads, 0,
              static_cast<const uint32_t*>(call_.right), reinterpret_cast<uint32_t*>(rows_), call_.n, words);
}

uint64_t library_products() { return served; }

}  // namespace gavel::cuda
