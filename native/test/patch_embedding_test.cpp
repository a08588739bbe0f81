#include "test/processor.h"
// The device comes first.
#include "test/cases/patch_embedding_cases.h"
