#include "cpu/dispatch.h"

namespace gavel::cpu {

void exp_row(Isa isa, float* values, int64_t count) {
  run_for_isa(
      isa, GAVEL_BODY {
        for (int64_t i = 0; i < count; ++i) values[i] = exp_in_loop(values[i]);
      });
}

}  // namespace gavel::cpu
