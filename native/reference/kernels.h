// Declarations of every reference kernel, expanded from the registry.
#pragma once
#include "ops/all.h"

namespace gavel::reference {

#define GAVEL_OP(name, Struct, backward)                  \
  void name##_forward(Context& context, const Struct& p); \
  void name##_backward(Context& context, const Struct& p);
GAVEL_OPS(GAVEL_OP)
#undef GAVEL_OP

}  // namespace gavel::reference
