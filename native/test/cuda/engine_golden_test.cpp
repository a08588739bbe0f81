#include "test/cuda/plugin.h"
// The device comes first.
#include "test/cases/engine_golden_cases.h"
