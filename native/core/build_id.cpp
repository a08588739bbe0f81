#include "core/build_id.h"

#include "gavel_build_id.h"

namespace gavel {

const char* build_id() { return GAVEL_BUILD_ID; }

}  // namespace gavel
