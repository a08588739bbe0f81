#include "test/processor.h"
// The device comes first.
#include "test/cases/rms_norm_cases.h"
