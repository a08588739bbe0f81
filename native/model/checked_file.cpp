#include "model/checked_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace gavel {
namespace {

Status file_error(const char* verb, const std::string& path, int number) {
  Code code = Code::io;
  const char* advice = "Check the path and the device.";
  if (number == ENOSPC || number == EDQUOT) {
    code = Code::disk_full;
    advice = "Free space or choose another folder; what was saved before is untouched.";
  } else if (number == EACCES || number == EPERM || number == EROFS) {
    code = Code::permission_denied;
    advice = "Change its permissions or choose another folder.";
  } else if (number == ENOMEM) {
    code = Code::out_of_memory;
    advice = "Free memory and try again.";
  }
  return Status::error(code, std::string("Expected to ") + verb + " \"" + path +
                                 "\" but received: " + std::strerror(number) + ". " + advice)
      .with("path", path)
      .with("errno", std::to_string(number));
}

}  // namespace

Status CheckedFile::open(const std::string& path, int flags, const char* verb) {
  close();
  do {
    descriptor_ = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  } while (descriptor_ < 0 && errno == EINTR);
  path_ = path;
  return descriptor_ < 0 ? file_error(verb, path, errno) : Status::success();
}

void CheckedFile::expect_sequential() const {
#if defined(POSIX_FADV_SEQUENTIAL)
  // A hint: whether the system takes it changes nothing but the speed.
  static_cast<void>(::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_SEQUENTIAL));
#endif
}

bool CheckedFile::is_regular() const {
  struct stat about {};
  return ::fstat(descriptor_, &about) == 0 && S_ISREG(about.st_mode);
}

Status CheckedFile::read_at(uint64_t offset, uint8_t* out, size_t size) const {
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

Status CheckedFile::write_at(uint64_t offset, const uint8_t* data, size_t size) const {
  while (size > 0) {
    const ssize_t put = ::pwrite(descriptor_, data, size, static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return file_error("write", path_, errno);
    data += put;
    offset += static_cast<uint64_t>(put);
    size -= static_cast<size_t>(put);
  }
  return Status::success();
}

Status CheckedFile::write(const uint8_t* data, size_t size) const {
  while (size > 0) {
    const ssize_t put = ::write(descriptor_, data, size);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return file_error("write", path_, errno);
    data += put;
    size -= static_cast<size_t>(put);
  }
  return Status::success();
}

Status CheckedFile::sync_and_close() {
  // A device or a pipe has nothing to sync.
  if (::fsync(descriptor_) != 0 && errno != EINVAL) return file_error("sync", path_, errno);
  if (close() != 0) return file_error("close", path_, errno);
  return Status::success();
}

int CheckedFile::close() {
  const int result = descriptor_ < 0 ? 0 : ::close(descriptor_);
  descriptor_ = -1;
  return result;
}

}  // namespace gavel
