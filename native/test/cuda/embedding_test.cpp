#include "test/cuda/plugin.h"
// The device comes first.
#include "test/cases/embedding_cases.h"
