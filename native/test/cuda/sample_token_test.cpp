#include "test/cuda/plugin.h"
// The device comes first.
#include "test/cases/sample_token_cases.h"
