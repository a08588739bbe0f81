#include "test/cuda/plugin.h"
// The device comes first.
#include "test/cases/adamw_cases.h"
