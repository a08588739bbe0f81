#include "test/cuda/plugin.h"
// The device comes first.
#include "test/cases/swiglu_cases.h"
