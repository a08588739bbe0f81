#include "test/cuda/plugin.h"
// The device comes first.
#include "test/cases/relu_cases.h"
