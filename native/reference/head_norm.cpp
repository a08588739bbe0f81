#include <cmath>
#include <vector>

#include "reference/access.h"
#include "reference/kernels.h"

namespace gavel::reference {

void head_norm_forward(Context&, const HeadNorm& p) {
  const int64_t columns = p.x.cols(), size = p.head_dim, heads = p.query_heads + p.key_heads;
  for (int64_t t = 0; t < p.x.rows(); ++t) {
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t first = t * columns + head * size;
      const Tensor& weight = head < p.query_heads ? p.query_weight : p.key_weight;
      double squares = 0;
      for (int64_t i = 0; i < size; ++i) squares += load(p.x, first + i) * load(p.x, first + i);
      const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(size) + p.eps);
      for (int64_t i = 0; i < size; ++i) store(p.out, first + i, load(p.x, first + i) * inverse * load(weight, i));
      store(p.inverse_rms, t * heads + head, inverse);
    }
    for (int64_t i = t * columns + heads * size; i < (t + 1) * columns; ++i) store(p.out, i, load(p.x, i));
  }
}

void head_norm_backward(Context&, const HeadNorm& p) {
  const int64_t columns = p.x.cols(), size = p.head_dim, heads = p.query_heads + p.key_heads;
  std::vector<double> sums(static_cast<size_t>(2 * size), 0.0);
  for (int64_t t = 0; t < p.x.rows(); ++t) {
    for (int64_t head = 0; head < heads; ++head) {
      const bool query = head < p.query_heads;
      const int64_t first = t * columns + head * size;
      const Tensor& weight = query ? p.query_weight : p.key_weight;
      const double inverse = load(p.inverse_rms, t * heads + head);
      double mean = 0;  // of g n
      for (int64_t i = 0; i < size; ++i) {
        const double n = load(p.x, first + i) * inverse;
        mean += load(p.grad_out, first + i) * load(weight, i) * n / static_cast<double>(size);
        sums[static_cast<size_t>((query ? 0 : size) + i)] += load(p.grad_out, first + i) * n;
      }
      for (int64_t i = 0; p.grad_x && i < size; ++i) {
        const double g = load(p.grad_out, first + i) * load(weight, i), n = load(p.x, first + i) * inverse;
        store(p.grad_x, first + i, inverse * (g - n * mean));
      }
    }
    for (int64_t i = t * columns + heads * size; p.grad_x && i < (t + 1) * columns; ++i)
      store(p.grad_x, i, load(p.grad_out, i));
  }
  for (int64_t i = 0; i < size; ++i) {
    if (p.grad_query_weight) put(p.grad_query_weight, i, sums[static_cast<size_t>(i)], true);
    if (p.grad_key_weight) put(p.grad_key_weight, i, sums[static_cast<size_t>(size + i)], true);
  }
}

}  // namespace gavel::reference
