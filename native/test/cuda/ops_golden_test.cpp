#include "test/cuda/plugin.h"
// The device comes first.
#include "test/cases/ops_golden_cases.h"
