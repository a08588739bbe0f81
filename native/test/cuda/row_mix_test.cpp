#include "test/cuda/plugin.h"
// The device comes first.
#include "test/cases/row_mix_cases.h"
