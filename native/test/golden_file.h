// Reads tensors of test/goldens/NAME.safetensors for native tests, as double.
#pragma once
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "test/check.h"

namespace gavel::test {

class GoldenFile {
 public:
  explicit GoldenFile(const std::string& name) {
    const std::string here = __FILE__;  // <root>/native/test/golden_file.h
    const std::string root = here.substr(0, here.rfind("native/test/"));
    const std::string path = "test/goldens/" + name + ".safetensors";
    std::ifstream file(root + path, std::ios::binary);
    // A compiler cache may have made __FILE__ relative to the build: then the tests run from the root.
    if (!file) file.open(path, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    if (bytes_.size() < 8) {
      fail(__FILE__, __LINE__, "cannot read golden file " + root + path);
      bytes_.assign(8, '\0');
    }
    uint64_t header = 0;
    std::memcpy(&header, bytes_.data(), 8);
    header_ = std::string(bytes_.data() + 8, header);
  }

  // Names that begin with `prefix`, without it, in the file's order.
  std::vector<std::string> names(const std::string& prefix) const {
    std::vector<std::string> found;
    const std::string quoted = '"' + prefix;
    for (size_t at = header_.find(quoted); at != std::string::npos; at = header_.find(quoted, at + 1)) {
      const size_t begin = at + quoted.size(), end = header_.find('"', begin);
      if (end == std::string::npos) break;
      if (header_.compare(end, 3, "\":{") == 0) found.push_back(header_.substr(begin, end - begin));
    }
    return found;
  }

  // Values of a tensor, row-major; fails the test when it is not there.
  std::vector<double> values(const std::string& name) const {
    const size_t at = header_.find("\"" + name + "\":");
    if (at == std::string::npos) {
      fail(__FILE__, __LINE__, "no golden tensor " + name);
      return {};
    }
    const std::string entry = header_.substr(at + name.size() + 3, header_.find('}', at) - at);
    const auto field = [&](const char* key) { return entry.substr(entry.find(key) + std::strlen(key)); };
    const std::string type = field("\"dtype\":\"").substr(0, field("\"dtype\":\"").find('"'));
    const std::string offsets = field("\"data_offsets\":[");
    const size_t begin = std::stoull(offsets), end = std::stoull(offsets.substr(offsets.find(',') + 1));
    const char* data = bytes_.data() + 8 + header_.size() + begin;
    if (type == "F64") return convert<double>(data, end - begin);
    if (type == "F32") return convert<float>(data, end - begin);
    if (type == "I64") return convert<int64_t>(data, end - begin);
    if (type == "U8") return convert<uint8_t>(data, end - begin);
    fail(__FILE__, __LINE__, "golden tensor " + name + " has dtype " + type);
    return {};
  }

 private:
  template <class T>
  static std::vector<double> convert(const char* data, size_t size_bytes) {
    std::vector<double> result(size_bytes / sizeof(T));
    for (size_t i = 0; i < result.size(); ++i) {
      T value;
      std::memcpy(&value, data + i * sizeof(T), sizeof(T));
      result[i] = static_cast<double>(value);
    }
    return result;
  }
  std::vector<char> bytes_;
  std::string header_;
};

}  // namespace gavel::test
