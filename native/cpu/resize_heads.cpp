// Heads copied to another width. Contract in ops/resize_heads.h.
#include <cstring>

#include "cpu/dispatch.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
namespace {

void copy_heads(Context& context, const Tensor& to, const Tensor& from, int64_t heads, int64_t to_size,
                int64_t from_size) {
  const size_t element = dtype_size(to.dtype), to_bytes = static_cast<size_t>(to_size) * element,
               from_bytes = static_cast<size_t>(from_size) * element, kept = std::min(to_bytes, from_bytes);
  const int64_t rows = to.rows(), step = rows_per_item(heads * to_size);
  context.pool->parallel_for(num_pieces(rows, step), [&](int64_t item, int) {
    for (int64_t row = item * step; row < std::min(rows, (item + 1) * step); ++row) {
      for (int64_t head = row * heads; head < (row + 1) * heads; ++head) {
        uint8_t* target = static_cast<uint8_t*>(to.data) + static_cast<size_t>(head) * to_bytes;
        std::memcpy(target, static_cast<const uint8_t*>(from.data) + static_cast<size_t>(head) * from_bytes, kept);
        std::memset(target + kept, 0, to_bytes - kept);
      }
    }
  });
}

}  // namespace

void resize_heads_forward(Context& context, const ResizeHeads& p) {
  copy_heads(context, p.out, p.x, p.heads, p.to, p.from);
}

void resize_heads_backward(Context& context, const ResizeHeads& p) {
  if (p.grad_x) copy_heads(context, p.grad_x, p.grad_out, p.heads, p.from, p.to);
}

}  // namespace gavel::cpu
