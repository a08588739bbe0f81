#include "test/processor.h"
// The device comes first.
#include "test/cases/global_norm_cases.h"
