#include "test/processor.h"
// The device comes first.
#include "test/cases/engine_cases.h"
#include "test/cases/engine_sampling_cases.h"
#include "test/cases/engine_state_cases.h"
