#include "core/status.h"

namespace gavel {

const char* code_name(Code code) {
  switch (code) {
#define GAVEL_CODE(name) \
  case Code::name:       \
    return #name;
    GAVEL_CODES(GAVEL_CODE)
#undef GAVEL_CODE
  }
  return "internal";
}

}  // namespace gavel
