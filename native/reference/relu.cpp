#include "reference/access.h"
#include "reference/kernels.h"

namespace gavel::reference {

void relu_forward(Context&, const Relu& p) {
  for (int64_t i = 0; i < p.x.shape.count(); ++i) {
    const double x = load(p.x, i);
    store(p.out, i, x <= 0 ? 0 : x);
  }
}

void relu_backward(Context&, const Relu& p) {
  for (int64_t i = 0; i < p.x.shape.count(); ++i) store(p.grad_x, i, load(p.x, i) <= 0 ? 0 : load(p.grad_out, i));
}

}  // namespace gavel::reference
