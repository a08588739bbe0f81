// A minimal test register: TEST("name") { CHECK(...); } collects failures with file, line and values;
// run_cases runs them.
#pragma once
#include <functional>
#include <sstream>
#include <string>
#include <vector>

namespace gavel::test {

struct Case {
  std::string name;
  void (*body)();
};

std::vector<Case>& cases();
void fail(const char* file, int line, const std::string& message);

// Runs the cases whose name contains argv[1] (default: all), prints "N passed, N failed", returns the exit code.
int run_cases(int argc, char** argv);

struct Register {
  Register(const char* name, void (*body)()) { cases().push_back({name, body}); }
};

}  // namespace gavel::test

// Numbered by a counter: cases of a header and of the file that includes it may stand in lines of one number.
#define GAVEL_TEST(name, number)                                                           \
  static void gavel_test_##number();                                                       \
  static const ::gavel::test::Register gavel_register_##number(name, gavel_test_##number); \
  static void gavel_test_##number()
#define GAVEL_NUMBERED_TEST(name, number) GAVEL_TEST(name, number)
#define TEST(name) GAVEL_NUMBERED_TEST(name, __COUNTER__)

#define CHECK(condition)                                                              \
  do {                                                                                \
    if (!(condition)) ::gavel::test::fail(__FILE__, __LINE__, "failed: " #condition); \
  } while (false)

// Prints both sides; compares with ==.
#define CHECK_EQ(left, right)                                                               \
  do {                                                                                      \
    const auto gavel_left = (left);                                                         \
    const auto gavel_right = (right);                                                       \
    if (!(gavel_left == gavel_right)) {                                                     \
      std::ostringstream gavel_text;                                                        \
      gavel_text << #left " = " << gavel_left << ", expected " #right " = " << gavel_right; \
      ::gavel::test::fail(__FILE__, __LINE__, gavel_text.str());                            \
    }                                                                                       \
  } while (false)

// |left - right| <= tolerance; NaN never passes.
#define CHECK_NEAR(left, right, tolerance)                                                                   \
  do {                                                                                                       \
    const double gavel_left = (left), gavel_right = (right), gavel_tol = (tolerance);                        \
    const double gavel_gap = gavel_left > gavel_right ? gavel_left - gavel_right : gavel_right - gavel_left; \
    if (!(gavel_gap <= gavel_tol)) {                                                                         \
      std::ostringstream gavel_text;                                                                         \
      gavel_text.precision(10);                                                                              \
      gavel_text << #left " = " << gavel_left << ", expected " << gavel_right << " within " << gavel_tol;    \
      ::gavel::test::fail(__FILE__, __LINE__, gavel_text.str());                                             \
    }                                                                                                        \
  } while (false)
