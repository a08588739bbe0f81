// What a native call came to. Codes equal src/errors.ts one for one, in order (a test compares the two lists).
// A Status is a value: nothing is thrown inside the engine; the two gates turn it into an exception or a rejection.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace gavel {

#define GAVEL_CODES(X)    \
  X(ok)                   \
  X(invalid_argument)     \
  X(invalid_config)       \
  X(bad_data)             \
  X(prompt_too_long)      \
  X(image_unreadable)     \
  X(image_count_mismatch) \
  X(corrupt_checkpoint)   \
  X(tokenizer_mismatch)   \
  X(io)                   \
  X(disk_full)            \
  X(permission_denied)    \
  X(out_of_memory)        \
  X(non_finite)           \
  X(unsupported)          \
  X(device_unavailable)   \
  X(binary_missing)       \
  X(gate_refused)         \
  X(aborted)              \
  X(disposed)             \
  X(internal)

enum class Code : int32_t {
#define GAVEL_CODE(name) name,
  GAVEL_CODES(GAVEL_CODE)
#undef GAVEL_CODE
};

const char* code_name(Code code);

struct [[nodiscard]] Status {
  Code code = Code::ok;
  std::string message;
  std::vector<std::pair<std::string, std::string>> fields;

  bool ok() const { return code == Code::ok; }
  static Status success() { return {}; }
  static Status error(Code code, std::string message) { return {code, std::move(message), {}}; }
  Status&& with(std::string name, std::string value) && {
    fields.emplace_back(std::move(name), std::move(value));
    return std::move(*this);
  }
};

}  // namespace gavel

#define GAVEL_RETURN_IF_ERROR(expression)                                                        \
  do {                                                                                           \
    if (::gavel::Status gavel_status_ = (expression); !gavel_status_.ok()) return gavel_status_; \
  } while (false)
