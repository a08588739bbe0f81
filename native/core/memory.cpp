#include "core/memory.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <vector>

#include "core/spare_memory.h"

namespace gavel {
namespace {

// Bytes behind "name:" or "name " in a file of such lines; kUnknownMemory when it is not there.
size_t value_of(const std::string& path, const std::string& name, size_t unit) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (line.compare(0, name.size(), name) != 0) continue;
    const char rest = line.size() > name.size() ? line[name.size()] : '\0';
    if (rest != ':' && rest != ' ') continue;
    return static_cast<size_t>(std::strtoull(line.c_str() + name.size() + 1, nullptr, 10)) * unit;
  }
  return kUnknownMemory;
}

// A file that holds one number, or "max".
size_t number_in(const std::string& path) {
  std::ifstream file(path);
  size_t value = 0;
  return file >> value ? value : kUnknownMemory;
}

size_t or_zero(size_t value) { return value == kUnknownMemory ? 0 : value; }

// What a control group leaves: its limit less what is used, the page cache not counted, since the kernel gives it back.
size_t left_in(const std::string& folder, const char* limit_name, const char* usage_name, const char* cache_prefix) {
  const size_t limit = number_in(folder + limit_name), usage = number_in(folder + usage_name);
  if (limit == kUnknownMemory || usage == kUnknownMemory) return kUnknownMemory;
  const std::string prefix = cache_prefix;
  const size_t cache = or_zero(value_of(folder + "/memory.stat", prefix + "inactive_file", 1)) +
                       or_zero(value_of(folder + "/memory.stat", prefix + "active_file", 1));
  const size_t held = usage - std::min(usage, cache);
  return limit - std::min(limit, held);
}

// A group is bounded by its parents too.
size_t left_in_groups(const std::string& mount, std::string path, const char* limit_name, const char* usage_name,
                      const char* cache_prefix) {
  size_t left = kUnknownMemory;
  for (;;) {
    left = std::min(left, left_in(mount + (path == "/" ? "" : path), limit_name, usage_name, cache_prefix));
    const size_t slash = path.rfind('/');
    if (path.empty() || path == "/" || slash == std::string::npos) return left;
    path.resize(slash);
  }
}

}  // namespace

size_t available_memory(const std::string& root) {
  size_t left = value_of(root + "/proc/meminfo", "MemAvailable", 1024);
  if (left != kUnknownMemory) left += or_zero(value_of(root + "/proc/meminfo", "SwapFree", 1024));
  std::ifstream groups(root + "/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {  // "0::/path", or in the old hierarchy "4:memory:/path"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    if (controllers.empty()) {
      left = std::min(left, left_in_groups(root + "/sys/fs/cgroup", path, "/memory.max", "/memory.current", ""));
    } else if ((',' + controllers + ',').find(",memory,") != std::string::npos) {
      left = std::min(left, left_in_groups(root + "/sys/fs/cgroup/memory", path, "/memory.limit_in_bytes",
                                           "/memory.usage_in_bytes", "total_"));
    }
  }
  return left;
}

Status check_memory(size_t requested, const std::string& what, const std::string& advice) {
  size_t available = available_memory();
  if (requested > available && give_back_spare_memory()) available = available_memory();
  if (requested <= available) return Status::success();
  return Status::error(Code::out_of_memory, "Expected " + std::to_string(requested) + " bytes for " + what + " but " +
                                                std::to_string(available) + " are available. " + advice)
      .with("requestedBytes", std::to_string(requested))
      .with("availableBytes", std::to_string(available));
}

}  // namespace gavel
