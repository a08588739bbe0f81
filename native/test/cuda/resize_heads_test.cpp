#include "test/cuda/plugin.h"
// The device comes first.
#include "test/cases/resize_heads_cases.h"
