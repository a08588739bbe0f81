#include "test/cuda/plugin.h"
// The device comes first.
#include "test/cases/head_logprob_cases.h"
