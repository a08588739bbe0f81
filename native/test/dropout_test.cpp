#include "test/processor.h"
// The device comes first.
#include "test/cases/dropout_cases.h"
