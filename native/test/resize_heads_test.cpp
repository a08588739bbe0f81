#include "test/processor.h"
// The device comes first.
#include "test/cases/resize_heads_cases.h"
