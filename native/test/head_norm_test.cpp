#include "test/processor.h"
// The device comes first.
#include "test/cases/head_norm_cases.h"
