// Linear: against the double reference, gradients by finite differences, and bit for bit against the declared chain for
// every number of rows, tiling, dealing and instruction set. Tilings are drawn at random: a fixed one hides order bugs.
#include "core/philox.h"
#include "cpu/gemm.h"
#include "cpu/kernels.h"
#include "reference/kernels.h"
#include "test/gemm_path.h"
#include "test/linear_case.h"

namespace gavel::test {
namespace {

constexpr DType kDTypes[] = {DType::f32, DType::bf16};

int64_t random_between(uint64_t seed, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(random_bits({seed, 0, 0, 0})[0] % static_cast<uint64_t>(high - low + 1));
}

struct Problem {
  int64_t n, k;
  DType dtype;
  GuardedTensor weight, bias;
  Problem(int64_t n_, int64_t k_, DType dtype_, uint64_t seed)
      : n(n_),
        k(k_),
        dtype(dtype_),
        weight(panel_tensor(n, k, dtype, hard_values(n * k, seed))),
        bias(random_tensor({n}, dtype, seed + 1)) {}
};

Linear forward_of(const Problem& problem, const GuardedTensor& x, const GuardedTensor& residual,
                  const GuardedTensor& out) {
  Linear p;
  p.out = out;
  p.x = x;
  p.weight = problem.weight;
  p.bias = problem.bias;
  p.residual = residual;
  return p;
}

// The declared chain, one element at a time. The caller has flush-to-zero set.
__attribute__((noinline)) float chain(const Tensor& x, int64_t row, const Tensor& weight, int64_t n, bool amx = false) {
  const int64_t k_total = weight.cols();
  float acc = 0;
  if (x.dtype == DType::f32) {
    for (int64_t k = 0; k < k_total; ++k) {
      acc = std::fmaf(x.f32()[row * k_total + k], weight.f32()[panel_index(n, k, k_total, DType::f32)], acc);
    }
    return acc;
  }
  const auto value = [&](const bf16_t* data, int64_t index, int64_t k) {
    return k < k_total ? bf16_to_float(data[index]) : 0.0f;
  };
  const auto product = [&](float sum, int64_t at) {
    return std::fmaf(value(x.bf16(), row * k_total + at, at),
                     value(weight.bf16(), panel_index(n, at, k_total, DType::bf16), at), sum);
  };
  for (int64_t k = 0; k < k_total && amx; k += 32) {
    float even = 0, odd = 0;
    for (int64_t at = k; at < k + 32; at += 2) {
      even = at < k_total ? product(even, at) : even;
      odd = at < k_total ? product(odd, at + 1) : odd;
    }
    acc += even + odd;
  }
  for (int64_t k = 0; k < k_total && !amx; k += 2) {
    for (int64_t at : {k + 1, k}) {
      acc = product(acc, at);
    }
  }
  return acc;
}

cpu::RowProduct product_of(const Linear& p) {
  cpu::RowProduct product;
  product.a = p.x.data;
  product.weight = p.weight.data;
  product.rows = p.x.rows();
  product.weight_n = p.weight.rows();
  product.weight_k = p.weight.cols();
  product.store = {p.out.data, p.residual.data, p.bias.data, p.out.dtype, p.bias.dtype, p.weight.rows()};
  return product;
}

}  // namespace

TEST("linear: forward and gradients match the double reference") {
  for (PathCase path : gemm_paths()) {
    PathContext context(2, path);
    uint64_t seed = 100;
    for (DType dtype : kDTypes) {
      for (const auto& shape : kLinearShapes)
        check_linear(context, {cpu::linear_forward, cpu::linear_backward}, dtype, shape, seed += 10);
    }
  }
}

TEST("linear: reference gradients are finite differences of the reference") {
  TestContext context;
  const int64_t m = 3, n = 5, k = 4;
  const std::vector<double> x = random_values(m * k, 1), w = random_values(n * k, 2), b = random_values(n, 3);
  const std::vector<double> upstream = random_values(m * n, 4), zero(static_cast<size_t>(m * n), 0.0);
  const auto loss = [&](const std::vector<double>& x_, const std::vector<double>& w_, const std::vector<double>& b_) {
    const GuardedTensor out = poisoned_tensor({m, n}, DType::f32), xt = tensor_of({m, k}, DType::f32, x_);
    const GuardedTensor wt = panel_tensor(n, k, DType::f32, w_), bt = tensor_of({n}, DType::f32, b_);
    Linear p;
    p.out = out;
    p.x = xt;
    p.weight = wt;
    p.bias = bt;
    reference::linear_forward(context, p);
    return dot(out.doubles(), upstream);
  };
  const GuardedTensor xt = tensor_of({m, k}, DType::f32, x), wt = panel_tensor(n, k, DType::f32, w);
  const GuardedTensor grad_out = tensor_of({m, n}, DType::f32, upstream), grad_x = poisoned_tensor({m, k}, DType::f32);
  const GuardedTensor grad_weight = panel_gradient(n, k, DType::f32), grad_bias = zero_tensor({n}, DType::f32);
  Linear p;
  p.x = xt;
  p.weight = wt;
  p.grad_out = grad_out;
  p.grad_x = grad_x;
  p.grad_weight = grad_weight;
  p.grad_bias = grad_bias;
  reference::linear_backward(context, p);
  CHECK_LE(gradient_error([&](const auto& v) { return loss(v, w, b); }, x, grad_x.doubles()), 1e-4);
  CHECK_LE(gradient_error([&](const auto& v) { return loss(x, v, b); }, w, grad_weight.doubles()), 1e-4);
  CHECK_LE(gradient_error([&](const auto& v) { return loss(x, w, v); }, b, grad_bias.doubles()), 1e-4);
}

TEST("linear: a row's bits equal the scalar chain and do not depend on rows, tiling, dealing or instruction set") {
  const FlushDenormals flush;
  constexpr int64_t kRows = 300;
  uint64_t seed = 1;
  for (DType dtype : kDTypes) {
    for (auto [n, k] : {std::array<int64_t, 2>{1, 5}, {67, 129}, {160, 96}, {129, 321}}) {
      const Problem problem(n, k, dtype, ++seed * 1000);
      const GuardedTensor x = tensor_of({kRows, k}, dtype, hard_values(kRows * k, seed * 1000 + 7));
      const GuardedTensor residual = random_tensor({kRows, n}, dtype, seed * 1000 + 8);
      for (PathCase path : gemm_paths()) {
        if (path.amx && dtype == DType::f32) continue;
        // Gold: the chain emulation for a sample of rows, and each row alone for all of them.
        const GuardedTensor gold = poisoned_tensor({kRows, n}, dtype);
        PathContext alone(1, gold_path(path));
        const int64_t size = static_cast<int64_t>(dtype_size(dtype));
        for (int64_t row = 0; row < kRows; ++row) {
          Linear p = forward_of(problem, x, residual, gold);
          for (Tensor* tensor : {&p.x, &p.residual, &p.out}) {
            tensor->data = static_cast<uint8_t*>(tensor->data) + row * tensor->cols() * size;
            tensor->shape = {1, tensor->cols()};
          }
          cpu::linear_forward(alone, p);
        }
        int64_t different = 0;
        for (int64_t row = 0; row < kRows; row += 37) {
          for (int64_t i = 0; i < n; ++i) {
            float value = chain(x, row, problem.weight, i, path.amx);
            value += static_cast<float>(problem.bias.load(i));
            value += static_cast<float>(residual.load(row * n + i));
            const GuardedTensor one({1}, dtype);
            one.store(0, value);
            different += std::memcmp(one.memory().data(), gold.memory().data() + (row * n + i) * size,
                                     static_cast<size_t>(size)) != 0;
          }
        }
        CHECK_EQ(different, 0);

        std::vector<int64_t> counts;
        for (int64_t m = 1; m <= 64; ++m) counts.push_back(m);
        counts.insert(counts.end(), {100, 256, 300});
        {
          PathContext one(1, path), two(2, path);
          for (int64_t m : counts) {
            const int64_t first = random_between(++seed, 0, kRows - m);
            const GuardedTensor out = poisoned_tensor({m, n}, dtype);
            Linear p = forward_of(problem, x, residual, out);
            p.x.data = static_cast<uint8_t*>(p.x.data) + first * k * size;
            p.residual.data = static_cast<uint8_t*>(p.residual.data) + first * n * size;
            p.x.shape = {m, k};
            p.residual.shape = {m, n};
            Context& context = seed % 2 == 0 ? one.context : two.context;
            if (seed % 3 == 0) {
              cpu::linear_forward(context, p);
            } else {
              cpu::Tiling tiling;
              tiling.max_rows = static_cast<int>(random_between(seed + 1, 1, 14));
              const bool halves = tiling.max_rows > cpu::kHalfRows && tiling.max_rows <= 2 * cpu::kHalfRows;
              const int most = path.amx ? (tiling.max_rows < 8 || m <= 16 ? 2 : 1)
                                        : (halves ? 2 : cpu::panels_for_rows(tiling.max_rows));
              tiling.panels = static_cast<int>(random_between(seed + 2, 1, most));
              tiling.row_chunk = random_between(seed + 3, 1, 100);
              tiling.chain_block = random_between(seed + 4, 1, 100);
              tiling.shared_bytes = random_between(seed + 5, 1, 100000);
              cpu::multiply_rows(context, dtype, product_of(p), tiling);
            }
            CHECK(std::memcmp(out.memory().data(), gold.memory().data() + first * n * size,
                              static_cast<size_t>(m * n * size)) == 0);
          }
        }
      }
    }
  }
}

TEST("linear: two chains added are not the chain (the comparison above can fail)") {
  const FlushDenormals flush;
  const int64_t k = 256, n = 64;
  const GuardedTensor x = random_tensor({1, k}, DType::f32, 5);
  const GuardedTensor weight = panel_tensor(n, k, DType::f32, random_values(n * k, 6));
  int64_t different = 0;
  for (int64_t i = 0; i < n; ++i) {
    float even = 0, odd = 0;
    for (int64_t j = 0; j < k; j += 2) {
      even = std::fmaf(x.tensor().f32()[j], weight.tensor().f32()[panel_index(i, j, k, DType::f32)], even);
      odd = std::fmaf(x.tensor().f32()[j + 1], weight.tensor().f32()[panel_index(i, j + 1, k, DType::f32)], odd);
    }
    different += chain(x, 0, weight, i) != even + odd;
  }
  CHECK(different > n / 4);
}

TEST("linear: gradient bits do not depend on threads, instruction set or row blocks") {
  for (DType dtype : kDTypes) {
    for (auto [m, n, k] : {std::array<int64_t, 3>{29, 65, 70}, {600, 33, 131}}) {
      const GuardedTensor x = tensor_of({m, k}, dtype, hard_values(m * k, 11));
      const GuardedTensor grad_out = tensor_of({m, n}, dtype, hard_values(m * n, 12));
      const GuardedTensor weight = panel_tensor(n, k, dtype, hard_values(n * k, 13));
      const auto run = [&](Context& context, const GuardedTensor& grad_x, const GuardedTensor& grad_weight,
                           const GuardedTensor& grad_bias, bool in_two_batches) {
        Linear p;
        p.x = x;
        p.weight = weight;
        p.grad_out = grad_out;
        p.grad_x = grad_x;
        p.grad_weight = grad_weight;
        p.grad_bias = grad_bias;
        const int64_t cut = in_two_batches ? m / 64 * 32 : m, size = static_cast<int64_t>(dtype_size(dtype));
        for (auto [begin, end] : {std::array<int64_t, 2>{0, cut}, {cut, m}}) {
          Linear part = p;
          for (Tensor* tensor : {&part.x, &part.grad_out, &part.grad_x}) {
            tensor->data = static_cast<uint8_t*>(tensor->data) + begin * tensor->cols() * size;
            tensor->shape = {end - begin, tensor->cols()};
          }
          cpu::linear_backward(context, part);
        }
      };
      for (PathCase path : gemm_paths()) {
        const GuardedTensor gold_x = poisoned_tensor({m, k}, dtype), gold_bias = zero_tensor({n}, DType::f32);
        const GuardedTensor gold_weight = panel_gradient(n, k, dtype);
        PathContext gold_context(1, gold_path(path));
        run(gold_context, gold_x, gold_weight, gold_bias, false);
        for (int threads : {1, 2, 5}) {
          for (bool in_two : {false, true}) {
            const GuardedTensor grad_x = poisoned_tensor({m, k}, dtype), grad_bias = zero_tensor({n}, DType::f32);
            const GuardedTensor grad_weight = panel_gradient(n, k, dtype);
            PathContext context(threads, path);
            run(context, grad_x, grad_weight, grad_bias, in_two);
            CHECK(same_bits(grad_x, gold_x));
            CHECK(same_bits(grad_weight, gold_weight));
            CHECK(same_bits(grad_bias, gold_bias));
          }
        }
      }
    }
  }
}

TEST("linear: long chains, in-place residual, no rows, absent gradients") {
  for (PathCase path : gemm_paths()) {
    for (DType dtype : kDTypes) {
      PathContext context(2, path);
      const int64_t m = 20, n = 40, k = 5200;  // more than one block of the chain in both directions
      const GuardedTensor x = random_tensor({m, k}, dtype, 1),
                          weight = panel_tensor(n, k, dtype, random_values(n * k, 2));
      const GuardedTensor residual = random_tensor({m, n}, dtype, 3), out = poisoned_tensor({m, n}, dtype);
      const GuardedTensor want = poisoned_tensor({m, n}, dtype);
      Linear p;
      p.x = x;
      p.weight = weight;
      p.residual = residual;
      p.out = want;
      reference::linear_forward(context, p);
      p.out = out;
      cpu::linear_forward(context, p);
      CHECK_RELATIVE_L2(out.doubles(), want.doubles(), linear_tolerance(dtype));
      p.out = residual;
      cpu::linear_forward(context, p);
      CHECK(same_bits(residual, out));

      // The gradient of the input through a tall weight: the chain runs over n.
      const GuardedTensor tall = panel_tensor(k, n, dtype, random_values(n * k, 4));
      const GuardedTensor tall_grad = poisoned_tensor({m, n}, dtype), tall_want = poisoned_tensor({m, n}, dtype);
      Linear q;
      q.x = residual;
      q.weight = tall;
      q.grad_out = x;
      q.grad_x = tall_want;
      reference::linear_backward(context, q);
      q.grad_x = tall_grad;
      cpu::linear_backward(context, q);
      CHECK_RELATIVE_L2(tall_grad.doubles(), tall_want.doubles(), linear_tolerance(dtype));

      const GuardedTensor grad_bias = zero_tensor({n}, DType::f32);
      Linear frozen;
      frozen.x = x;
      frozen.weight = weight;
      frozen.grad_out = residual;
      frozen.grad_bias = grad_bias;
      cpu::linear_backward(context, frozen);
      CHECK(grad_bias.load(0) != 0);

      Linear none = p;
      none.x.shape = {0, k};
      none.out.shape = none.residual.shape = {0, n};
      none.grad_out = none.out;
      none.grad_x = none.x;
      const GuardedTensor grad_weight = panel_gradient(n, k, dtype);
      none.grad_weight = grad_weight;
      cpu::linear_forward(context, none);
      cpu::linear_backward(context, none);
      CHECK_EQ(max_abs_error(grad_weight.doubles(), std::vector<double>(static_cast<size_t>(n * k), 0.0)), 0.0);
    }
  }
}

TEST("linear: the plain tile gives the bits of the vector tiles") {
  const FlushDenormals flush;
  for (DType dtype : kDTypes) {
    for (int rows = 1; rows <= cpu::kTileRows; ++rows) {
      const bool halves = rows > cpu::kHalfRows && rows <= 2 * cpu::kHalfRows;
      const int64_t steps = 37, panels = halves ? 2 : cpu::panels_for_rows(rows), count = panels * cpu::kLanes;
      const GuardedTensor a = tensor_of({steps * rows * 2}, dtype, hard_values(steps * rows * 2, 3));
      const GuardedTensor b = tensor_of({steps * count * 2}, dtype, hard_values(steps * count * 2, 4));
      cpu::Tile tile;
      tile.a = static_cast<const uint32_t*>(a.tensor().data);
      tile.b = static_cast<const uint32_t*>(b.tensor().data);
      tile.steps = steps;
      tile.b_panel = steps * cpu::kLanes;
      tile.rows = rows;
      tile.panels = static_cast<int>(panels);
      for (int layout = 0; layout < 4; ++layout) {
        tile.resume = layout % 2 == 1;
        const bool by_panel = layout >= 2;  // panels one after the other, as gradients of a weight lie
        tile.c_row = by_panel ? cpu::kLanes : count;
        tile.c_panel = by_panel ? rows * cpu::kLanes : cpu::kLanes;
        const GuardedTensor gold = random_tensor({rows, count}, DType::f32, 5);
        tile.c = gold.tensor().f32();
        cpu::run_tile_plain(dtype, tile);
        for (Isa isa : isas()) {
          TestContext context(1, isa);
          const GuardedTensor c = random_tensor({rows, count}, DType::f32, 5);
          tile.c = c.tensor().f32();
          cpu::run_tile(cpu::GemmPath(context.context, dtype), tile);
          CHECK(same_bits(c, gold));
        }
      }
    }
  }
}

}  // namespace gavel::test
