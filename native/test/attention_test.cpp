#include "test/processor.h"
// The device comes first.
#include "test/cases/attention_cases.h"
