// Runs the native tests: gavel_native_tests [substring of a name]. Prints "N passed, N failed".
#include "test/check.h"

int main(int argc, char** argv) { return gavel::test::run_cases(argc, argv); }
