#include "test/cuda/plugin.h"
// The device comes first.
#include "test/cases/gelu_cases.h"
