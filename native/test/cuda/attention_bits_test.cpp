#include "test/cuda/plugin.h"
// The device comes first.
#include "test/cases/attention_bits_cases.h"
