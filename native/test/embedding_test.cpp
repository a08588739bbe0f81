#include "test/processor.h"
// The device comes first.
#include "test/cases/embedding_cases.h"
