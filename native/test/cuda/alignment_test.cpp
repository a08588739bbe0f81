// Kernels that take 16 bytes at a time where operands allow it give the bits of their other form, which an operand at 8
// bytes past such an address has them take.
#include <functional>
#include <utility>
#include <vector>

#include "test/cuda/plugin.h"
#include "test/op_test.h"

namespace gavel::test {
namespace {

using Results = std::vector<GuardedTensor>;

void same_in_both_forms(const std::function<Results(Context&)>& run) {
  TestContext context(1);
  const Results whole = run(context);
  shift_operands(8);
  const Results shifted = run(context);
  shift_operands(0);
  CHECK_EQ(whole.size(), shifted.size());
  for (size_t i = 0; i < whole.size(); ++i) CHECK(same_bits(whole[i], shifted[i]));
}

template <class... Tensors>
Results results(Tensors&&... tensors) {
  Results made;
  (made.push_back(std::forward<Tensors>(tensors)), ...);
  return made;
}

// forward and backward of an op with out, x, grad_out and grad_x.
template <class Struct>
Results pointwise(Context& context, Struct p, void (*forward)(Context&, const Struct&),
                  void (*backward)(Context&, const Struct&), Shape in, Shape out_shape, DType dtype) {
  const GuardedTensor x = random_tensor(in, dtype, 1, 2.0), grad_out = random_tensor(out_shape, dtype, 2);
  GuardedTensor out = poisoned_tensor(out_shape, dtype), grad_x = random_tensor(in, dtype, 3);
  p.x = x;
  p.out = out;
  p.grad_out = grad_out;
  p.grad_x = grad_x;
  forward(context, p);
  backward(context, p);
  return results(std::move(out), std::move(grad_x));
}

constexpr DType kTypes[] = {DType::f32, DType::bf16};

}  // namespace

TEST("cuda alignment: elementwise kernels give the same bits from whole and from odd addresses") {
  for (const DType dtype : kTypes) {
    const auto check = [&](auto p, auto forward, auto backward, Shape in, Shape out) {
      same_in_both_forms([&](Context& context) { return pointwise(context, p, forward, backward, in, out, dtype); });
    };
    check(Relu{}, device::relu_forward, device::relu_backward, {3, 40}, {3, 40});
    for (const bool tanh : {false, true}) {
      Gelu p;
      p.tanh_approximation = tanh;
      check(p, device::gelu_forward, device::gelu_backward, {3, 40}, {3, 40});
    }
    check(Swiglu{}, device::swiglu_forward, device::swiglu_backward, {5, 96}, {5, 48});
    const GuardedArray<float> scales(std::vector<float>(40, 0.75f));
    for (const bool scaled : {false, true}) {
      Dropout p;
      p.scale = 1.5f;
      p.column_scale = scaled ? scales.data() : nullptr;
      p.probability = 0.3f;
      p.seed = 11;
      p.first_row = 5;
      p.accumulate_x = scaled;
      check(p, device::dropout_forward, device::dropout_backward, {7, 40}, {7, 40});
    }
    const GuardedArray<int32_t> rows(std::vector<int32_t>{4, 0, 4});
    GatherRows gather;
    gather.rows = rows;
    check(gather, device::gather_rows_forward, device::gather_rows_backward, {6, 40}, {3, 40});
    same_in_both_forms([&](Context& context) {
      GuardedTensor x = random_tensor({5, 3 * 32}, dtype, 1);
      const GuardedTensor cosine = random_tensor({5, 16}, DType::f32, 2), sine = random_tensor({5, 16}, DType::f32, 3);
      Rope p;
      p.x = x;
      p.cosine = cosine;
      p.sine = sine;
      p.heads = 2;
      p.head_dim = 32;
      device::rope_forward(context, p);
      return results(std::move(x));
    });
  }
}

TEST("cuda alignment: norms give the same bits from whole and from odd addresses") {
  for (const DType dtype : kTypes) {
    for (const int64_t columns : {24, 1280, 5000}) {
      const GuardedTensor weight = random_tensor({columns}, dtype, 4), bias = random_tensor({columns}, dtype, 5);
      same_in_both_forms([&](Context& context) {
        GuardedTensor inverse = poisoned_tensor({70}, DType::f32), grad = random_tensor({columns}, DType::f32, 6);
        RmsNorm p;
        p.weight = weight;
        p.inverse_rms = inverse;
        p.grad_weight = grad;
        p.accumulate_x = true;
        Results made = pointwise(context, p, device::rms_norm_forward, device::rms_norm_backward, {70, columns},
                                 {70, columns}, dtype);
        made.push_back(std::move(inverse));
        made.push_back(std::move(grad));
        return made;
      });
      same_in_both_forms([&](Context& context) {
        GuardedTensor statistics = poisoned_tensor({70, 2}, DType::f32), grad = random_tensor({columns}, DType::f32, 6),
                      grad_bias = random_tensor({columns}, DType::f32, 7);
        LayerNorm p;
        p.weight = weight;
        p.bias = bias;
        p.statistics = statistics;
        p.grad_weight = grad;
        p.grad_bias = grad_bias;
        Results made = pointwise(context, p, device::layer_norm_forward, device::layer_norm_backward, {70, columns},
                                 {70, columns}, dtype);
        made.push_back(std::move(statistics));
        made.push_back(std::move(grad));
        made.push_back(std::move(grad_bias));
        return made;
      });
    }
    for (const int32_t size : {16, 80, 128}) {
      const GuardedTensor query = random_tensor({size}, dtype, 4), key = random_tensor({size}, dtype, 5);
      same_in_both_forms([&](Context& context) {
        GuardedTensor inverse = poisoned_tensor({70, 3}, DType::f32), grad_query = random_tensor({size}, DType::f32, 6),
                      grad_key = random_tensor({size}, DType::f32, 7);
        HeadNorm p;
        p.query_weight = query;
        p.key_weight = key;
        p.query_heads = 2;
        p.key_heads = 1;
        p.head_dim = size;
        p.inverse_rms = inverse;
        p.grad_query_weight = grad_query;
        p.grad_key_weight = grad_key;
        // Values that are no whole number of heads.
        const Shape shape{70, 4 * size + 8};
        Results made =
            pointwise(context, p, device::head_norm_forward, device::head_norm_backward, shape, shape, dtype);
        made.push_back(std::move(inverse));
        made.push_back(std::move(grad_query));
        made.push_back(std::move(grad_key));
        return made;
      });
    }
  }
}

TEST("cuda alignment: embedding, AdamW and the global norm give the same bits from whole and from odd addresses") {
  for (const DType dtype : kTypes) {
    for (const Layout layout : {Layout::rows, Layout::panels}) {
      same_in_both_forms([&](Context& context) {
        const std::vector<double> values = random_values(40 * 24, 1);
        const GuardedTensor table =
            layout == Layout::panels ? panel_tensor(40, 24, dtype, values) : tensor_of({40, 24}, dtype, values);
        const GuardedTensor features = random_tensor({2, 24}, dtype, 2), grad_out = random_tensor({4, 24}, dtype, 3);
        const GuardedArray<int32_t> tokens(std::vector<int32_t>{33, 7, 33, 2}),
            rows(std::vector<int32_t>{-1, 1, -1, -1});
        GuardedTensor out = poisoned_tensor({4, 24}, dtype), grad_features = poisoned_tensor({2, 24}, dtype),
                      grad_table =
                          layout == Layout::panels ? panel_gradient(40, 24, dtype) : zero_tensor({40, 24}, DType::f32);
        Embedding p;
        p.table = table;
        p.features = features;
        p.tokens = tokens;
        p.feature_rows = rows;
        p.out = out;
        p.grad_out = grad_out;
        p.grad_features = grad_features;
        p.grad_table = grad_table;
        device::embedding_forward(context, p);
        device::embedding_backward(context, p);
        return results(std::move(out), std::move(grad_features), std::move(grad_table));
      });
    }
    for (const DType moments : {DType::f32, DType::bf16, DType::u8}) {
      for (const bool master : {false, true}) {
        constexpr int64_t kCount = 4 * kStateBlock + 37;
        same_in_both_forms([&](Context& context) {
          GuardedTensor value = random_tensor({kCount}, dtype, 1), own = random_tensor({kCount}, DType::f32, 1);
          const GuardedTensor grad = random_tensor({kCount}, DType::f32, 2);
          // Moments as whole words of fp32: narrower ones fill the beginning.
          GuardedTensor first = zero_tensor({kCount}, DType::f32), second = zero_tensor({kCount}, DType::f32),
                        scales1 = zero_tensor({5}, DType::f32), scales2 = zero_tensor({5}, DType::f32);
          AdamW p;
          p.value = value;
          if (master) p.master = own;
          p.grad = grad.tensor().f32();
          p.moment1 = {first.tensor().data, {kCount}, moments};
          p.moment2 = {second.tensor().data, {kCount}, moments};
          if (moments == DType::u8) {
            p.scales1 = scales1.tensor().f32();
            p.scales2 = scales2.tensor().f32();
          }
          p.count = kCount;
          p.learning_rate = 1e-2;
          p.seed = 3;
          for (p.step = 1; p.step < 4; ++p.step) device::adamw_forward(context, p);
          return results(std::move(value), std::move(own), std::move(first), std::move(second), std::move(scales1),
                         std::move(scales2));
        });
      }
    }
  }
  same_in_both_forms([&](Context& context) {
    const GuardedTensor one = random_tensor({9000}, DType::f32, 1), other = random_tensor({4096}, DType::f32, 2);
    const float* const grads[] = {one.tensor().f32(), other.tensor().f32()};
    const int64_t counts[] = {9000, 4096};
    double norm = 0;
    bool finite = false;
    GlobalNorm p;
    p.grads = grads;
    p.counts = counts;
    p.num_grads = 2;
    p.norm = &norm;
    p.finite = &finite;
    device::global_norm_forward(context, p);
    CHECK(finite);
    return results(tensor_of({2}, DType::f32, {norm, (norm - static_cast<float>(norm)) * 1e6}));
  });
}

}  // namespace gavel::test
