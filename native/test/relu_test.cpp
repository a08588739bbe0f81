#include "test/processor.h"
// The device comes first.
#include "test/cases/relu_cases.h"
