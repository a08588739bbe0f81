#include "test/cuda/plugin.h"
// The device comes first.
#include "test/cases/gather_rows_cases.h"
