#include "test/cuda/plugin.h"
// The device comes first.
#include "test/cases/patch_embedding_cases.h"
