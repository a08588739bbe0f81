#include "test/cuda/plugin.h"
// The device comes first.
#include "test/cases/global_norm_cases.h"
