#include "test/cuda/plugin.h"
// The device comes first.
#include "test/cases/rope_cases.h"
