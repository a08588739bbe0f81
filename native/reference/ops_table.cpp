#include "reference/kernels.h"

namespace gavel {
namespace {

template <bool kHasBackward, class Struct, void (*kForward)(Context&, const Struct&), class Backward>
constexpr OpRow row(const char* name, [[maybe_unused]] Backward backward) {
  return {name, [](Context& context, const void* p) { kForward(context, *static_cast<const Struct*>(p)); }, backward};
}

#define GAVEL_BACKWARD_true(name, Struct) \
  [](Context& context, const void* p) { reference::name##_backward(context, *static_cast<const Struct*>(p)); }
#define GAVEL_BACKWARD_false(name, Struct) nullptr

const OpTable kTable = {"reference",
                        {
#define GAVEL_OP(name, Struct, backward)            \
  row<backward, Struct, reference::name##_forward>( \
      #name, static_cast<void (*)(Context&, const void*)>(GAVEL_BACKWARD_##backward(name, Struct))),
                            GAVEL_OPS(GAVEL_OP)
#undef GAVEL_OP
                        }};

}  // namespace

const OpTable& reference_ops() { return kTable; }

}  // namespace gavel
