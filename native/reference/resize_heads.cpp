#include "reference/access.h"
#include "reference/kernels.h"

namespace gavel::reference {
namespace {

void copy_heads(const Tensor& to, const Tensor& from, int64_t heads, int64_t to_size, int64_t from_size) {
  for (int64_t head = 0; head < to.rows() * heads; ++head) {
    for (int64_t i = 0; i < to_size; ++i)
      store(to, head * to_size + i, i < from_size ? load(from, head * from_size + i) : 0.0);
  }
}

}  // namespace

void resize_heads_forward(Context&, const ResizeHeads& p) { copy_heads(p.out, p.x, p.heads, p.to, p.from); }

void resize_heads_backward(Context&, const ResizeHeads& p) {
  if (p.grad_x) copy_heads(p.grad_x, p.grad_out, p.heads, p.from, p.to);
}

}  // namespace gavel::reference
