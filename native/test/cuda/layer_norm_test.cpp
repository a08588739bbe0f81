#include "test/cuda/plugin.h"
// The device comes first.
#include "test/cases/layer_norm_cases.h"
