// Files to weights and back by several threads: equal to one thread and bit for bit, and what is broken says so.
#include "model/tensor_file.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "test/check.h"

namespace gavel::test {
namespace {

// A file that goes away with the test.
class TemporaryFile {
 public:
  TemporaryFile() {
    char name[] = "/tmp/gavel-tensor-file-XXXXXX";
    const int descriptor = ::mkstemp(name);
    if (descriptor >= 0) ::close(descriptor);
    path_ = name;
  }
  ~TemporaryFile() { std::remove(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Large enough for several pieces a tensor, sources that begin inside a panel, odd columns.
void declare(Weights& weights, DType dtype) {
  weights.add("qkv", ParameterKind::matrix, {{"q", {576, 1027}}, {"k", {40, 1027}}, {"v", {40, 1027}}});
  weights.add("embedding", ParameterKind::embedding, {{"e", {3000, 192}}}, Layout::rows);
  weights.add("norm", ParameterKind::norm, {{"n", {1027}}});
  CHECK(weights.allocate(dtype).ok());
}

std::vector<TensorWrite> writes_of(FileDType dtype) {
  return {{"q", TensorKind::value, dtype},
          {"k", TensorKind::value, dtype},
          {"v", TensorKind::value, dtype},
          {"e", TensorKind::value, dtype},
          {"n", TensorKind::value, dtype}};
}

std::vector<TensorRead> reads_of(const std::string& path, FileDType dtype) {
  std::vector<TensorRead> reads;
  uint64_t offset = 8;
  for (const auto& [name, count] : {std::pair<const char*, uint64_t>{"q", 576 * 1027},
                                    {"k", 40 * 1027},
                                    {"v", 40 * 1027},
                                    {"e", 3000 * 192},
                                    {"n", 1027}}) {
    const uint64_t size = count * static_cast<uint64_t>(block_size(dtype).bytes);
    reads.push_back({name, TensorKind::value, path, offset, size, dtype});
    offset += size;
  }
  return reads;
}

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

const std::vector<uint8_t> kHeader(8, 0x20);
const std::atomic<bool> kGoOn{false};

}  // namespace

TEST("weights are saved and loaded by any number of threads, bit for bit") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const FileDType stored = dtype == DType::f32 ? FileDType::f32 : FileDType::bf16;
    Weights weights;
    declare(weights, dtype);
    weights.initialize(3, 0.5);
    const TemporaryFile one, many, again;
    CHECK(save_tensors(weights, ThreadPool(1), one.path(), kHeader, writes_of(stored), kGoOn).ok());
    CHECK(save_tensors(weights, ThreadPool(4), many.path(), kHeader, writes_of(stored), kGoOn).ok());
    CHECK(contents(one.path()) == contents(many.path()));
    CHECK_EQ(contents(one.path()).size(), size_t{8} + (656 * 1027 + 3000 * 192 + 1027) * dtype_size(dtype));
    Weights loaded;
    declare(loaded, dtype);
    CHECK(load_tensors(loaded, ThreadPool(4), reads_of(one.path(), stored), kGoOn).ok());
    CHECK(save_tensors(loaded, ThreadPool(4), again.path(), kHeader, writes_of(stored), kGoOn).ok());
    CHECK(contents(one.path()) == contents(again.path()));
    std::vector<float> left, right;
    CHECK(weights.read("v", TensorKind::value, &left).ok());
    CHECK(loaded.read("v", TensorKind::value, &right).ok());
    CHECK(left == right);
  }
}

TEST("a file that ends early is corrupt, whoever reads it, and names the earliest hole") {
  Weights weights;
  declare(weights, DType::f32);
  const TemporaryFile file;
  CHECK(save_tensors(weights, ThreadPool(2), file.path(), kHeader, writes_of(FileDType::f32), kGoOn).ok());
  CHECK_EQ(::truncate(file.path().c_str(), 1000000), 0);
  for (const int threads : {1, 4}) {
    const Status status = load_tensors(weights, ThreadPool(threads), reads_of(file.path(), FileDType::f32), kGoOn);
    CHECK(status.code == Code::corrupt_checkpoint);
    CHECK(status.message.find(file.path()) != std::string::npos);
    CHECK(status.message.find("the file ends there") != std::string::npos);
  }
  const std::atomic<bool> aborted{true};
  const Status status = load_tensors(weights, ThreadPool(2), reads_of(file.path(), FileDType::f32), aborted);
  CHECK(status.code == Code::aborted);
}

TEST("rows of interleaved heads are put back in order") {
  constexpr int64_t kHeads = 9, kHeadRows = 64, kCols = 32;
  Weights weights;
  weights.add("q", ParameterKind::matrix, {{"q", {kHeads * kHeadRows, kCols}}});
  CHECK(weights.allocate(DType::f32).ok());
  std::vector<float> file_rows(static_cast<size_t>(kHeads * kHeadRows * kCols));
  // Row 2 i + j of a head in the file is row 32 j + i of the model; every value names the model's row.
  for (int64_t head = 0; head < kHeads; ++head) {
    for (int64_t row = 0; row < kHeadRows; ++row) {
      const int64_t at = head * kHeadRows + row % 2 * (kHeadRows / 2) + row / 2;
      for (int64_t col = 0; col < kCols; ++col) {
        file_rows[static_cast<size_t>(((head * kHeadRows) + row) * kCols + col)] = static_cast<float>(at);
      }
    }
  }
  const TemporaryFile file;
  std::ofstream(file.path(), std::ios::binary)
      .write(reinterpret_cast<const char*>(file_rows.data()),
             static_cast<std::streamsize>(file_rows.size() * sizeof(float)));
  TensorRead read{"q", TensorKind::value, file.path(), 0, file_rows.size() * sizeof(float), FileDType::f32, kHeads};
  CHECK(load_tensors(weights, ThreadPool(3), {read}, kGoOn).ok());
  std::vector<float> values;
  CHECK(weights.read("q", TensorKind::value, &values).ok());
  for (size_t i = 0; i < values.size(); ++i) CHECK_EQ(values[i], static_cast<float>(i / kCols));
  read.interleaved_heads = 7;
  CHECK(load_tensors(weights, ThreadPool(3), {read}, kGoOn).code == Code::corrupt_checkpoint);
}

}  // namespace gavel::test
