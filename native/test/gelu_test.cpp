#include "test/processor.h"
// The device comes first.
#include "test/cases/gelu_cases.h"
