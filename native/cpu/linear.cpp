// Linear: forward, gradients of input, weight, bias and residual. Contract in ops/linear.h, chains in gemm.h.
#include "cpu/gemm.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
namespace {

const uint8_t* row_of(const Tensor& tensor, int64_t row) {
  return static_cast<const uint8_t*>(tensor.data) + static_cast<size_t>(row * tensor.cols()) * dtype_size(tensor.dtype);
}

// Blocks of rows whose packed x and grad_out fit the shared budget; multiples of 32, so that neither a bf16 pair nor an
// AMX block of 16 pairs straddles two.
void weight_gradient(Context& context, const Linear& p) {
  const DType dtype = p.x.dtype;
  const Isa isa = context.isa;
  const GemmPath path(context, dtype);
  const int64_t rows = p.x.rows(), k_total = p.x.cols(), n_total = p.grad_out.cols();
  const int64_t panels = divide_up(n_total, kLanes);
  const RowGroups groups = outer_groups(path, k_total);
  const int64_t width = round_up(k_total, 2) + panels * kLanes;
  // Steps whose rows of x, packed, stay in L2 for many panels: gradients are read and written once a block.
  constexpr int64_t kBlockSteps = 512;
  const int64_t fitting = std::min(kSharedBytes / (width * static_cast<int64_t>(dtype_size(dtype))),
                                   dtype == DType::bf16 ? 2 * kBlockSteps : kBlockSteps);
  const int64_t block = std::min(round_up(rows, 32), std::max<int64_t>(256, fitting / 32 * 32));
  const int64_t block_steps = chain_steps(block, dtype);
  uint32_t* const x = reinterpret_cast<uint32_t*>(
      context.scratch->shared(0, static_cast<size_t>(outer_dwords(path, k_total, block)) * 4));
  uint32_t* const dy =
      reinterpret_cast<uint32_t*>(context.scratch->shared(1, static_cast<size_t>(block_steps * panels * kLanes) * 4));
  for (int64_t row = 0; row < rows; row += block) {
    const int64_t count = std::min(block, rows - row), steps = chain_steps(count, dtype);
    const int64_t parts = divide_up(groups.count, 8);
    context.pool->parallel_for(parts + panels, [&](int64_t item, int) {
      if (item < parts) {
        return pack_outer_x(path, row_of(p.x, row), count, k_total, groups.cut(item, parts),
                            groups.cut(item + 1, parts), x);
      }
      const int64_t panel = item - parts, column = panel * kLanes;
      const int columns = static_cast<int>(std::min<int64_t>(kLanes, n_total - column));
      const void* grad_out = row_of(p.grad_out, row);
      pack_columns(isa, dtype, grad_out, n_total, count, column, columns, kLanes, dy + panel * steps * kLanes);
      if (p.grad_bias) {
        add_column_sums(isa, dtype, grad_out, n_total, count, column, columns, p.grad_bias.f32() + column);
      }
    });
    accumulate_outer(context, path, {x, dy, steps, panels, k_total, p.grad_weight.f32()});
  }
}

void bias_gradient(Context& context, const Linear& p) {
  const int64_t n_total = p.grad_out.cols();
  context.pool->parallel_for(divide_up(n_total, kLanes), [&](int64_t panel, int) {
    const int64_t column = panel * kLanes;
    add_column_sums(context.isa, p.grad_out.dtype, p.grad_out.data, n_total, p.grad_out.rows(), column,
                    static_cast<int>(std::min<int64_t>(kLanes, n_total - column)), p.grad_bias.f32() + column);
  });
}

void residual_gradient(Context& context, const Linear& p) {
  constexpr int64_t kChunk = 1 << 14;
  const int64_t count = p.grad_out.shape.count();
  context.pool->parallel_for(divide_up(count, kChunk), [&](int64_t chunk, int) {
    const int64_t end = std::min(count, (chunk + 1) * kChunk);
    for (int64_t i = chunk * kChunk; i < end; ++i) {
      if (p.grad_out.dtype == DType::bf16) {
        bf16_t* to = p.grad_residual.bf16() + i;
        *to = float_to_bf16(bf16_to_float(*to) + bf16_to_float(p.grad_out.bf16()[i]));
      } else {
        p.grad_residual.f32()[i] += p.grad_out.f32()[i];
      }
    }
  });
}

}  // namespace

void linear_forward(Context& context, const Linear& p) {
  RowProduct product;
  product.a = p.x.data;
  product.weight = p.weight.data;
  product.rows = p.x.rows();
  product.weight_n = p.weight.rows();
  product.weight_k = p.weight.cols();
  product.store = {p.out.data,     p.residual.data, p.bias.data, p.out.dtype, p.bias ? p.bias.dtype : DType::f32,
                   p.weight.rows()};
  multiply_rows(context, p.x.dtype, product);
}

void linear_backward(Context& context, const Linear& p) {
  if (p.grad_out.shape.count() == 0) {
    if (p.grad_x && !p.accumulate_x) {
      std::fill_n(static_cast<uint8_t*>(p.grad_x.data),
                  static_cast<size_t>(p.grad_x.shape.count()) * dtype_size(p.grad_x.dtype), uint8_t{0});
    }
    return;
  }
  if (p.grad_residual) residual_gradient(context, p);
  if (p.grad_weight) {
    weight_gradient(context, p);
  } else if (p.grad_bias) {
    bias_gradient(context, p);
  }
  if (!p.grad_x) return;
  RowProduct product;
  product.a = p.grad_out.data;
  product.weight = p.weight.data;
  product.rows = p.grad_out.rows();
  product.weight_n = p.weight.rows();
  product.weight_k = p.weight.cols();
  product.transposed = true;
  product.store.out = p.grad_x.data;
  product.store.residual = p.accumulate_x ? p.grad_x.data : nullptr;
  product.store.dtype = p.grad_x.dtype;
  product.store.columns = p.weight.cols();
  multiply_rows(context, p.grad_out.dtype, product);
}

}  // namespace gavel::cpu
