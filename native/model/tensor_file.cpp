#include "model/tensor_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "core/dtype.h"

namespace gavel {
namespace {

constexpr size_t kChunkBytes = size_t{4} << 20;

Status file_error(const char* verb, const std::string& path, int number) {
  Code code = Code::io;
  const char* todo = "Check the path and the device.";
  if (number == ENOSPC || number == EDQUOT) {
    code = Code::disk_full;
    todo = "Free space or choose another folder; what was saved before is untouched.";
  } else if (number == EACCES || number == EPERM || number == EROFS) {
    code = Code::permission_denied;
    todo = "Change its permissions or choose another folder.";
  } else if (number == ENOMEM) {
    code = Code::out_of_memory;
    todo = "Free memory and try again.";
  }
  return Status::error(code, std::string("Expected to ") + verb + " \"" + path +
                                 "\" but received: " + std::strerror(number) + ". " + todo)
      .with("path", path)
      .with("errno", std::to_string(number));
}

class File {
 public:
  File() = default;
  ~File() { close(); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  Status open(const std::string& path, int flags, const char* verb) {
    close();
    do {
      descriptor_ = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
    } while (descriptor_ < 0 && errno == EINTR);
    path_ = path;
    return descriptor_ < 0 ? file_error(verb, path, errno) : Status::success();
  }
  int close() {
    const int result = descriptor_ < 0 ? 0 : ::close(descriptor_);
    descriptor_ = -1;
    return result;
  }
  int descriptor() const { return descriptor_; }
  const std::string& path() const { return path_; }

  Status read_at(uint64_t offset, uint8_t* out, size_t size) const {
    while (size > 0) {
      const ssize_t got = ::pread(descriptor_, out, size, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return file_error("read", path_, errno);
      if (got == 0) {
        return Status::error(Code::corrupt_checkpoint, "Expected " + std::to_string(size) + " more bytes at offset " +
                                                           std::to_string(offset) + " of \"" + path_ +
                                                           "\" but the file ends there. Copy or download it again.")
            .with("path", path_);
      }
      out += got;
      offset += static_cast<uint64_t>(got);
      size -= static_cast<size_t>(got);
    }
    return Status::success();
  }

  Status write(const uint8_t* data, size_t size) const {
    while (size > 0) {
      const ssize_t put = ::write(descriptor_, data, size);
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return file_error("write", path_, errno);
      data += put;
      size -= static_cast<size_t>(put);
    }
    return Status::success();
  }

 private:
  int descriptor_ = -1;
  std::string path_;
};

constexpr size_t file_dtype_size(FileDType dtype) { return dtype == FileDType::f32 ? 4 : 2; }

float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu, fraction = half & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
  // A half's denormal is a normal float, made with integers: this thread flushes denormals.
  if (fraction == 0) return std::bit_cast<float>(sign);
  const int shift = std::countl_zero(fraction) - 21;
  return std::bit_cast<float>(sign | static_cast<uint32_t>(113 - shift) << 23 | ((fraction << shift) & 0x3ffu) << 13);
}

void decode(const uint8_t* bytes, size_t count, FileDType dtype, float* out) {
  if (dtype == FileDType::f32) {
    std::memcpy(out, bytes, count * 4);
    return;
  }
  for (size_t i = 0; i < count; ++i) {
    uint16_t value;
    std::memcpy(&value, bytes + 2 * i, 2);
    out[i] = dtype == FileDType::bf16 ? bf16_to_float(value) : half_to_float(value);
  }
}

void encode(const float* values, size_t count, FileDType dtype, uint8_t* bytes) {
  if (dtype == FileDType::f32) {
    std::memcpy(bytes, values, count * 4);
    return;
  }
  for (size_t i = 0; i < count; ++i) {
    const uint16_t value = float_to_bf16(values[i]);
    std::memcpy(bytes + 2 * i, &value, 2);
  }
}

const char* kind_name(TensorKind kind) {
  constexpr const char* kNames[] = {"value", "master", "moment1", "moment2", "gradient"};
  return kNames[static_cast<size_t>(kind)];
}

const Tensor& tensor_of(const Parameter& parameter, TensorKind kind) {
  switch (kind) {
    case TensorKind::master:
      return parameter.master;
    case TensorKind::moment1:
      return parameter.moment1;
    case TensorKind::moment2:
      return parameter.moment2;
    case TensorKind::gradient:
      return parameter.grad;
    case TensorKind::value:
      break;
  }
  return parameter.value;
}

Status unknown(const std::string& name) {
  return Status::error(Code::invalid_argument, "Expected the name of a tensor of this model but received \"" + name +
                                                   "\". The names are those of its Hugging Face checkpoint.")
      .with("name", name);
}

Status missing(const std::string& name, TensorKind kind) {
  return Status::error(Code::invalid_argument, "Expected a " + std::string(kind_name(kind)) + " of \"" + name +
                                                   "\" but there is none: gradients and masters exist after the first "
                                                   "forwardBackward, moments after the first optimizer step, and only "
                                                   "for trainable tensors.")
      .with("name", name)
      .with("kind", kind_name(kind));
}

// The row-major view of a source: a vector is one column.
struct Rows {
  int64_t rows, columns;
};
Rows rows_of(const SourceTensor& source) {
  const int64_t rows = source.shape[0];
  return {rows, rows == 0 ? 0 : source.shape.count() / rows};
}

const Parameter* find(const Weights& weights, const std::string& name, const SourceTensor** source) {
  return const_cast<Weights&>(weights).find(name, source);
}

// Gradients, masters and moments are made when somebody brings one.
Status ensure_kind(Weights& weights, TensorKind kind) {
  if (kind == TensorKind::gradient || kind == TensorKind::master) return weights.ensure_gradients();
  if (kind == TensorKind::value) return Status::success();
  GAVEL_RETURN_IF_ERROR(weights.ensure_gradients());
  return weights.ensure_moments();
}

Status load_one(Weights& weights, const TensorRead& read, const File& file, const std::atomic<bool>& aborted,
                std::vector<uint8_t>& bytes, std::vector<float>& values) {
  GAVEL_RETURN_IF_ERROR(ensure_kind(weights, read.kind));
  const SourceTensor* source = nullptr;
  Parameter* parameter = weights.find(read.name, &source);
  if (parameter == nullptr) return unknown(read.name);
  if (!tensor_of(*parameter, read.kind)) return missing(read.name, read.kind);
  const Rows size = rows_of(*source);
  const size_t row_bytes = static_cast<size_t>(size.columns) * file_dtype_size(read.dtype);
  const uint64_t expected = static_cast<uint64_t>(size.rows) * row_bytes;
  if (read.size_bytes != expected) {
    return Status::error(Code::corrupt_checkpoint, "Expected " + std::to_string(expected) + " bytes for \"" +
                                                       read.name + "\" but \"" + read.path + "\" holds " +
                                                       std::to_string(read.size_bytes) + ".")
        .with("name", read.name)
        .with("path", read.path);
  }
  const int64_t step = std::max<int64_t>(1, static_cast<int64_t>(kChunkBytes / std::max<size_t>(1, row_bytes)));
  for (int64_t begin = 0; begin < size.rows; begin += step) {
    if (aborted.load(std::memory_order_relaxed)) return Status::error(Code::aborted, "Loading was aborted.");
    const int64_t rows = std::min(step, size.rows - begin);
    bytes.resize(static_cast<size_t>(rows) * row_bytes);
    values.resize(static_cast<size_t>(rows * size.columns));
    GAVEL_RETURN_IF_ERROR(
        file.read_at(read.offset + static_cast<uint64_t>(begin) * row_bytes, bytes.data(), bytes.size()));
    decode(bytes.data(), values.size(), read.dtype, values.data());
    weights.write_rows(*parameter, *source, read.kind, begin, rows, values.data());
  }
  return Status::success();
}

Status save_one(const Weights& weights, const TensorWrite& write, const File& file, const std::atomic<bool>& aborted,
                std::vector<uint8_t>& bytes, std::vector<float>& values) {
  const SourceTensor* source = nullptr;
  const Parameter* parameter = find(weights, write.name, &source);
  if (parameter == nullptr) return unknown(write.name);
  if (!tensor_of(*parameter, write.kind)) return missing(write.name, write.kind);
  const Rows size = rows_of(*source);
  const size_t row_bytes = static_cast<size_t>(size.columns) * file_dtype_size(write.dtype);
  const int64_t step = std::max<int64_t>(1, static_cast<int64_t>(kChunkBytes / std::max<size_t>(1, row_bytes)));
  for (int64_t begin = 0; begin < size.rows; begin += step) {
    if (aborted.load(std::memory_order_relaxed)) return Status::error(Code::aborted, "Saving was aborted.");
    const int64_t rows = std::min(step, size.rows - begin);
    values.resize(static_cast<size_t>(rows * size.columns));
    bytes.resize(static_cast<size_t>(rows) * row_bytes);
    weights.read_rows(*parameter, *source, write.kind, begin, rows, values.data());
    encode(values.data(), values.size(), write.dtype, bytes.data());
    GAVEL_RETURN_IF_ERROR(file.write(bytes.data(), bytes.size()));
  }
  return Status::success();
}

Status write_all(const Weights& weights, File& file, const std::vector<uint8_t>& header,
                 const std::vector<TensorWrite>& writes, const std::atomic<bool>& aborted) {
  std::vector<uint8_t> bytes;
  std::vector<float> values;
  GAVEL_RETURN_IF_ERROR(file.write(header.data(), header.size()));
  for (const TensorWrite& write : writes) {
    GAVEL_RETURN_IF_ERROR(save_one(weights, write, file, aborted, bytes, values));
  }
  // A device or a pipe has nothing to sync.
  if (::fsync(file.descriptor()) != 0 && errno != EINVAL) return file_error("sync", file.path(), errno);
  if (file.close() != 0) return file_error("close", file.path(), errno);
  return Status::success();
}

}  // namespace

Status load_tensors(Weights& weights, const std::vector<TensorRead>& reads, const std::atomic<bool>& aborted) {
  std::vector<uint8_t> bytes;
  std::vector<float> values;
  File file;
  for (const TensorRead& read : reads) {
    if (file.path() != read.path) GAVEL_RETURN_IF_ERROR(file.open(read.path, O_RDONLY, "open"));
    GAVEL_RETURN_IF_ERROR(load_one(weights, read, file, aborted, bytes, values));
  }
  return Status::success();
}

Status save_tensors(const Weights& weights, const std::string& path, const std::vector<uint8_t>& header,
                    const std::vector<TensorWrite>& writes, const std::atomic<bool>& aborted) {
  File file;
  GAVEL_RETURN_IF_ERROR(file.open(path, O_WRONLY | O_CREAT | O_TRUNC, "create"));
  struct stat about {};
  const bool regular = ::fstat(file.descriptor(), &about) == 0 && S_ISREG(about.st_mode);
  Status status = write_all(weights, file, header, writes, aborted);
  if (!status.ok() && regular) ::unlink(path.c_str());
  return status;
}

}  // namespace gavel
