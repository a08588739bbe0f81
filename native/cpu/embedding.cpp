// Rows gathered from a table or from features. The backward deals pieces of columns, and each piece walks the rows in
// ascending order: every element of the table's gradient has one writer and one order, whatever the number of threads.
#include "cpu/dispatch.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
namespace {

constexpr int64_t kColumns = 64;

// Calls body(k, index) for the columns [begin, end) of row n of a table, index being the place of element (n, k).
template <class Body>
GAVEL_INLINE void for_elements(const Tensor& table, int64_t n, int64_t begin, int64_t end, const Body& body) {
  const int64_t columns = table.cols();
  if (table.layout == Layout::rows) {
    for (int64_t k = begin; k < end; ++k) body(k, n * columns + k);
  } else if (table.dtype == DType::bf16) {
    const int64_t base = panel_index(n, 0, columns, DType::bf16);
    for (int64_t k = begin; k < end; ++k) body(k, base + (k >> 1) * (2 * kPanel) + (k & 1));
  } else {
    const int64_t base = panel_index(n, 0, columns, DType::f32);
    for (int64_t k = begin; k < end; ++k) body(k, base + k * kPanel);
  }
}

bool is_feature(const Embedding& p, int64_t row) { return p.feature_rows != nullptr && p.feature_rows[row] >= 0; }

}  // namespace

void embedding_forward(Context& context, const Embedding& p) {
  const int64_t rows = p.out.rows(), columns = p.out.cols(), step = rows_per_item(columns);
  with_element(p.out.dtype, [&](auto* out_type) {
    with_element(p.table.dtype, [&](auto* table_type) {
      with_element(p.features.dtype, [&](auto* feature_type) {
        using Out = std::remove_pointer_t<decltype(out_type)>;
        using Value = std::remove_pointer_t<decltype(table_type)>;
        using Feature = std::remove_pointer_t<decltype(feature_type)>;
        context.pool->parallel_for(num_pieces(rows, step), [&](int64_t item, int) {
          for (int64_t row = item * step; row < std::min(rows, (item + 1) * step); ++row) {
            Out* out = static_cast<Out*>(p.out.data) + row * columns;
            if (is_feature(p, row)) {
              const Feature* feature = static_cast<const Feature*>(p.features.data) + p.feature_rows[row] * columns;
              for (int64_t k = 0; k < columns; ++k) store_value(out + k, load_value(feature + k));
            } else {
              const Value* table = static_cast<const Value*>(p.table.data);
              for_elements(p.table, token_of(p.tokens, p.sources, row), 0, columns,
                           [&](int64_t k, int64_t index) { store_value(out + k, load_value(table + index)); });
            }
          }
        });
      });
    });
  });
}

void embedding_backward(Context& context, const Embedding& p) {
  const int64_t rows = p.out.rows(), columns = p.out.cols();
  with_element(p.grad_out.dtype, [&](auto* grad_type) {
    using Grad = std::remove_pointer_t<decltype(grad_type)>;
    const Grad* grad_out = static_cast<const Grad*>(p.grad_out.data);
    if (p.grad_table) {
      float* grad_table = p.grad_table.f32();
      context.pool->parallel_for(num_pieces(columns, kColumns), [&](int64_t item, int) {
        const int64_t begin = item * kColumns, end = std::min(columns, begin + kColumns);
        for (int64_t row = 0; row < rows; ++row) {
          if (is_feature(p, row)) continue;
          for_elements(p.table, token_of(p.tokens, p.sources, row), begin, end, [&](int64_t k, int64_t index) {
            grad_table[index] += load_value(grad_out + row * columns + k);
          });
        }
      });
    }
    if (p.grad_token_rows) {
      float* grad_rows = p.grad_token_rows.f32();
      context.pool->parallel_for(num_pieces(columns, kColumns), [&](int64_t item, int) {
        const int64_t begin = item * kColumns, end = std::min(columns, begin + kColumns);
        for (int64_t row = 0; row < rows; ++row) {
          const int64_t to = is_feature(p, row) ? -1 : p.row_of_token[token_of(p.tokens, p.sources, row)];
          if (to < 0) continue;
          for (int64_t k = begin; k < end; ++k) grad_rows[to * columns + k] += load_value(grad_out + row * columns + k);
        }
      });
    }
    if (p.grad_features) {
      with_element(p.grad_features.dtype, [&](auto* feature_type) {
        using Feature = std::remove_pointer_t<decltype(feature_type)>;
        Feature* grad_features = static_cast<Feature*>(p.grad_features.data);
        // A feature that stands at no token gets zero.
        std::fill(grad_features, grad_features + p.grad_features.shape.count(), Feature{0});
        const int64_t step = rows_per_item(columns);
        context.pool->parallel_for(num_pieces(rows, step), [&](int64_t item, int) {
          for (int64_t row = item * step; row < std::min(rows, (item + 1) * step); ++row) {
            if (!is_feature(p, row)) continue;
            Feature* grad = grad_features + p.feature_rows[row] * columns;
            for (int64_t k = 0; k < columns; ++k) store_value(grad + k, load_value(grad_out + row * columns + k));
          }
        });
      });
    }
  });
}

}  // namespace gavel::cpu
