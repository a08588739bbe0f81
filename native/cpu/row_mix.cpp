// Weighted sums of gathered rows. The backward walks the transposed index: for every table row the places that read it,
// in ascending order, so an element of the gradient has one writer and one order, whatever the number of threads.
#include "cpu/dispatch.h"
#include "cpu/kernels.h"

namespace gavel::cpu {
namespace {

constexpr int64_t kColumns = 64;

// The transposed index: entries [begins[n], begins[n + 1]) are the places r * taps + k where index is n, ascending.
struct Readers {
  const int64_t* begins;
  const int64_t* places;
};

Readers transpose(Context& context, const RowMix& p) {
  const int64_t rows = p.table.rows() + 1, places = p.out.rows() * p.taps;
  auto* begins =
      reinterpret_cast<int64_t*>(context.scratch->shared(0, static_cast<size_t>(rows + 2) * sizeof(int64_t)));
  auto* list = reinterpret_cast<int64_t*>(
      context.scratch->shared(1, static_cast<size_t>(std::max<int64_t>(places, 1)) * sizeof(int64_t)));
  std::fill(begins, begins + rows + 2, int64_t{0});
  // Counted two entries further on, so that filling leaves begins[n + 1] at the end of row n.
  for (int64_t i = 0; i < places; ++i) {
    if (p.index[i] >= 0) ++begins[p.index[i] + 2];
  }
  for (int64_t n = 2; n < rows + 2; ++n) begins[n] += begins[n - 1];
  for (int64_t i = 0; i < places; ++i) {
    if (p.index[i] >= 0) list[begins[p.index[i] + 1]++] = i;
  }
  return {begins, list};
}

// sums[c] += weight * grad_out[r][begin + c] over the readers of row n.
template <class Grad>
GAVEL_INLINE void add_readers(float* sums, const RowMix& p, const Readers& readers, int64_t n, int64_t begin,
                              int64_t count) {
  const int64_t columns = p.out.cols();
  for (int64_t i = readers.begins[n]; i < readers.begins[n + 1]; ++i) {
    const int64_t place = readers.places[i];
    const Grad* grad = static_cast<const Grad*>(p.grad_out.data) + place / p.taps * columns + begin;
    const float weight = p.weights == nullptr ? 1.0f : p.weights[place];
    for (int64_t c = 0; c < count; ++c) sums[c] += weight * load_value(grad + c);
  }
}

template <class Value, class Grad>
void gather_gradient(Context& context, const RowMix& p, const Readers& readers, Value* target, int64_t first,
                     int64_t rows, bool accumulate) {
  const int64_t columns = p.out.cols();
  for_rows(
      context, rows, columns, [&](int64_t row) __attribute__((always_inline)) {
        for (int64_t begin = 0; begin < columns; begin += kColumns) {
          const int64_t count = std::min(kColumns, columns - begin);
          Value* to = target + row * columns + begin;
          alignas(64) float sums[kColumns];
          for (int64_t c = 0; c < count; ++c) sums[c] = accumulate ? load_value(to + c) : 0.0f;
          add_readers<Grad>(sums, p, readers, first + row, begin, count);
          for (int64_t c = 0; c < count; ++c) store_value(to + c, sums[c]);
        }
      });
}

}  // namespace

void row_mix_forward(Context& context, const RowMix& p) {
  const int64_t columns = p.out.cols();
  with_element(p.out.dtype, [&](auto* type) {
    using Value = std::remove_pointer_t<decltype(type)>;
    const Value* table = static_cast<const Value*>(p.table.data);
    const Value* extra = static_cast<const Value*>(p.extra.data);
    const int64_t table_rows = p.table.rows();
    for_rows(
        context, p.out.rows(), columns, [&](int64_t row) __attribute__((always_inline)) {
          const Value* base = p.base ? static_cast<const Value*>(p.base.data) + row * columns : nullptr;
          Value* out = static_cast<Value*>(p.out.data) + row * columns;
          for (int64_t begin = 0; begin < columns; begin += kColumns) {
            const int64_t count = std::min(kColumns, columns - begin);
            alignas(64) float sums[kColumns];
            for (int64_t c = 0; c < count; ++c) sums[c] = base == nullptr ? 0.0f : load_value(base + begin + c);
            for (int32_t k = 0; k < p.taps; ++k) {
              const int64_t place = row * p.taps + k, n = p.index[place];
              if (n < 0) continue;
              const Value* from = (n < table_rows ? table + n * columns : extra) + begin;
              const float weight = p.weights == nullptr ? 1.0f : p.weights[place];
              for (int64_t c = 0; c < count; ++c) sums[c] += weight * load_value(from + c);
            }
            for (int64_t c = 0; c < count; ++c) store_value(out + begin + c, sums[c]);
          }
        });
  });
}

void row_mix_backward(Context& context, const RowMix& p) {
  const int64_t columns = p.out.cols(), table_rows = p.table.rows();
  with_element(p.grad_out.dtype, [&](auto* type) {
    using Grad = std::remove_pointer_t<decltype(type)>;
    if (p.grad_base) {
      for_rows(
          context, p.out.rows(), columns, [&](int64_t row) __attribute__((always_inline)) {
            const Grad* from = static_cast<const Grad*>(p.grad_out.data) + row * columns;
            Grad* to = static_cast<Grad*>(p.grad_base.data) + row * columns;
            for (int64_t c = 0; c < columns; ++c) store_value(to + c, load_value(to + c) + load_value(from + c));
          });
    }
    if (!p.grad_table && !p.grad_extra) return;
    const Readers readers = transpose(context, p);
    if (p.grad_table) {
      with_element(p.grad_table.dtype, [&](auto* table_type) {
        using Value = std::remove_pointer_t<decltype(table_type)>;
        gather_gradient<Value, Grad>(context, p, readers, static_cast<Value*>(p.grad_table.data), 0, table_rows,
                                     p.accumulate_table);
      });
    }
    if (p.grad_extra) {
      gather_gradient<float, Grad>(context, p, readers, p.grad_extra.f32(), table_rows, 1, true);
    }
  });
}

}  // namespace gavel::cpu
