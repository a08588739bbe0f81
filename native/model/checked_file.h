// A file of tensors: every read and write is checked, whole and retried, and says what went wrong with which path.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "core/status.h"

namespace gavel {

class CheckedFile {
 public:
  CheckedFile() = default;
  ~CheckedFile() { close(); }
  CheckedFile(const CheckedFile&) = delete;
  CheckedFile& operator=(const CheckedFile&) = delete;

  // `verb` ("open", "create") stands in the error. Closes what was open.
  Status open(const std::string& path, int flags, const char* verb);
  // To be read from front to back: the system reads ahead.
  void expect_sequential() const;
  bool is_regular() const;
  const std::string& path() const { return path_; }

  // Safe from several threads. A file that ends early is corrupt_checkpoint.
  Status read_at(uint64_t offset, uint8_t* out, size_t size) const;
  Status write_at(uint64_t offset, const uint8_t* data, size_t size) const;
  // At the end; for pipes and devices as well.
  Status write(const uint8_t* data, size_t size) const;
  Status sync_and_close();

 private:
  int close();
  int descriptor_ = -1;
  std::string path_;
};

}  // namespace gavel
