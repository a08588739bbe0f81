#include "bench/native/cuda/arguments.h"

#include <algorithm>
#include <cstdlib>

namespace gavel::bench {
namespace {

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    if (comma > begin) parts.push_back(text.substr(begin, comma - begin));
    begin = comma + 1;
  }
  return parts;
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

bool number(const std::string& text, double low, double high, double* value) {
  char* end = nullptr;
  *value = std::strtod(text.c_str(), &end);
  return !text.empty() && *end == '\0' && *value >= low && *value <= high;
}

std::string expected(const std::string& flag, const std::string& what, const std::string& received) {
  return "Expected " + what + " for `" + flag + "` but received '" + received + "'.";
}

}  // namespace

bool parse_arguments(const std::vector<std::string>& words, const std::vector<std::string>& names, Arguments* arguments,
                     std::string* message) {
  const std::vector<std::string> valued = {"--only",   "--dtypes", "--seconds", "--device",
                                           "--commit", "--out",    "--cublaslt"};
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& flag = words[i];
    if (flag == "--quick" || flag == "--list" || flag == "--help") {
      (flag == "--quick" ? arguments->tiny : flag == "--list" ? arguments->list : arguments->help) = true;
      continue;
    }
    if (std::find(valued.begin(), valued.end(), flag) == valued.end()) {
      *message = "Expected one of " + joined(valued) + ", --quick, --list, --help but received '" + flag + "'.";
      return false;
    }
    if (i + 1 == words.size() || words[i + 1].rfind("--", 0) == 0) {
      *message = "Expected a value after `" + flag + "` but received none.";
      return false;
    }
    const std::string& value = words[++i];
    double parsed = 0;
    if (flag == "--only") {
      for (const std::string& name : arguments->only = split(value)) {
        if (std::find(names.begin(), names.end(), name) != names.end()) continue;
        *message = expected(flag, "names of " + joined(names), name);
        return false;
      }
    } else if (flag == "--dtypes") {
      arguments->dtypes.clear();
      for (const std::string& name : split(value)) {
        if (name != "bf16" && name != "fp32") {
          *message = expected(flag, "bf16, fp32 or both", name);
          return false;
        }
        arguments->dtypes.push_back(name == "bf16" ? DType::bf16 : DType::f32);
      }
    } else if (flag == "--seconds") {
      if (!number(value, 0.001, 60, &parsed)) {
        *message = expected(flag, "0.001 to 60 seconds a case", value);
        return false;
      }
      arguments->seconds = parsed;
    } else if (flag == "--device") {
      if (!number(value, 0, 63, &parsed) || parsed != static_cast<int32_t>(parsed)) {
        *message = expected(flag, "the index of a device", value);
        return false;
      }
      arguments->device = static_cast<int32_t>(parsed);
    } else {
      (flag == "--commit" ? arguments->commit : flag == "--out" ? arguments->out : arguments->cublaslt) = value;
    }
  }
  return true;
}

std::string usage(const std::vector<std::string>& names) {
  return "gavel_cuda_bench [--only NAME,...] [--dtypes bf16,fp32] [--seconds S] [--device N] [--commit ID] [--out "
         "FILE]\n"
         "                 [--cublaslt FILE] [--quick] [--list] [--help]\n"
         "Measures the card's ceilings, then every kernel and the engine at real shapes; prints a table and one JSON "
         "object "
         "a line to\n"
         "FILE (standard output without it).\n"
         "  --only      workloads: " +
         joined(names) +
         "\n  --seconds   of measuring a case (0.3)\n  --cublaslt  the vendor's library, where it is not on the "
         "loader's "
         "path\n  --quick     tiny sizes\n  --list      names the cases and ends\n";
}

bool selected(const Arguments& arguments, const std::string& workload, DType dtype) {
  const std::vector<std::string>& only = arguments.only;
  return (only.empty() || std::find(only.begin(), only.end(), workload) != only.end()) &&
         std::find(arguments.dtypes.begin(), arguments.dtypes.end(), dtype) != arguments.dtypes.end();
}

}  // namespace gavel::bench
