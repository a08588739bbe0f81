#include <cstdio>
#include <cstring>

#include "test/check.h"

namespace gavel::test {
namespace {
int failures_of_case = 0;
}

std::vector<Case>& cases() {
  static std::vector<Case> list;
  return list;
}

void fail(const char* file, int line, const std::string& message) {
  if (++failures_of_case <= 5) std::printf("    %s:%d: %s\n", file, line, message.c_str());
}

int run_cases(int argc, char** argv) {
  int passed = 0, failed = 0;
  for (const Case& one : cases()) {
    if (argc > 1 && one.name.find(argv[1]) == std::string::npos) continue;
    failures_of_case = 0;
    one.body();
    const bool good = failures_of_case == 0;
    std::printf("%s %s\n", good ? "ok    " : "FAILED", one.name.c_str());
    std::fflush(stdout);
    ++(good ? passed : failed);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}

}  // namespace gavel::test
