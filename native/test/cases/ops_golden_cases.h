// Ops against torch in double (ops.safetensors) where the golden's form is not the op's own: RoPE and attention of
// batched heads, the fused head, patches as a convolution. The other ops compare with their goldens in their own cases.
// On the TestDevice that the includer names.
#pragma once
#include <cmath>

#include "test/attention_case.h"
#include "test/gemm_path.h"
#include "test/golden_file.h"

namespace gavel::test {
namespace {

using Values = std::vector<double>;

// [batch, heads, tokens, dim] of one batch entry's rows from `first` on.
Values rows_of(const Values& golden, int64_t batch, int64_t heads, int64_t tokens, int64_t dim, int64_t first = 0) {
  Values rows;
  for (int64_t t = first; t < tokens; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      const auto begin = golden.begin() + ((batch * heads + h) * tokens + t) * dim;
      rows.insert(rows.end(), begin, begin + dim);
    }
  }
  return rows;
}

// The golden's heads are 8 wide, the kernel's a multiple of 16: what is padded with zeros adds nothing to any score.
constexpr int64_t kDim = 8, kPadded = 16;

struct AttentionGolden {
  const GoldenFile& golden;
  std::string name;
  int64_t query_heads, kv_heads, tokens;
};

void put_heads(GuardedTensor& into, int64_t first_column, const Values& rows, int64_t heads) {
  const int64_t columns = into.tensor().cols();
  for (int64_t i = 0; i < static_cast<int64_t>(rows.size()); ++i) {
    const int64_t row = i / (heads * kDim), head = i / kDim % heads, d = i % kDim;
    into.store(row * columns + first_column + head * kPadded + d, rows[static_cast<size_t>(i)]);
  }
}

Values take_heads(const GuardedTensor& from, int64_t first_column, int64_t heads) {
  const int64_t columns = from.tensor().cols();
  Values rows;
  for (int64_t row = 0; row < from.tensor().shape[0]; ++row) {
    for (int64_t head = 0; head < heads; ++head) {
      for (int64_t d = 0; d < kDim; ++d) rows.push_back(from.load(row * columns + first_column + head * kPadded + d));
    }
  }
  return rows;
}

void check_attention(const AttentionGolden& one, int64_t batch, int64_t first) {
  const Heads heads{static_cast<int32_t>(one.query_heads), static_cast<int32_t>(one.kv_heads), kPadded};
  const auto golden_rows = [&](const char* part, int64_t count) {
    return rows_of(one.golden.values(one.name + "." + part), batch, count, one.tokens, kDim, first);
  };
  for (Isa isa : TestDevice::isas()) {
    TestContext context(2, isa);
    AttentionCase attention(plan_of({{static_cast<int32_t>(one.tokens - first), {}}}), heads, DType::f32, 1);
    attention.p.scale = 1.0f / std::sqrt(static_cast<float>(kDim));
    attention.qkv.fill(0.0);
    const int64_t keys = one.query_heads * kPadded, values = keys + one.kv_heads * kPadded;
    put_heads(attention.qkv, 0, golden_rows("q", one.query_heads), one.query_heads);
    put_heads(attention.qkv, keys, golden_rows("k", one.kv_heads), one.kv_heads);
    put_heads(attention.qkv, values, golden_rows("v", one.kv_heads), one.kv_heads);
    attention.grad_out.fill(0.0);
    put_heads(attention.grad_out, 0, golden_rows("upstream", one.query_heads), one.query_heads);
    TestDevice::attention_forward(context, attention.p);
    TestDevice::attention_backward(context, attention.p);
    CHECK_RELATIVE_L2(take_heads(attention.out, 0, one.query_heads), golden_rows("out", one.query_heads), 1e-6);
    CHECK_RELATIVE_L2(take_heads(attention.grad_qkv, 0, one.query_heads), golden_rows("grad_q", one.query_heads), 2e-6);
    CHECK_RELATIVE_L2(take_heads(attention.grad_qkv, keys, one.kv_heads), golden_rows("grad_k", one.kv_heads), 2e-6);
    CHECK_RELATIVE_L2(take_heads(attention.grad_qkv, values, one.kv_heads), golden_rows("grad_v", one.kv_heads), 2e-6);
  }
}

struct HeadGradients {
  Values logprob, entropy, hidden, weight;
};

// The head over a golden's h [7, 24] and w [301, 24]; the upstream goes to log-probs or entropies.
HeadGradients run_head(TestContext& context, const GoldenFile& golden, const std::string& name, float temperature,
                       bool to_entropy) {
  constexpr int32_t kTargets = 7;
  constexpr int64_t kHidden = 24, kVocabulary = 301;
  const GuardedTensor hidden = tensor_of({kTargets, kHidden}, DType::f32, golden.values(name + ".h")),
                      weight = panel_tensor(kVocabulary, kHidden, DType::f32, golden.values(name + ".w")),
                      grad_hidden = poisoned_tensor({kTargets, kHidden}, DType::f32),
                      grad_weight = panel_gradient(kVocabulary, kHidden, DType::f32);
  std::vector<int32_t> rows, tokens;
  for (double target : golden.values("linear_logprob.target")) {
    rows.push_back(static_cast<int32_t>(rows.size()));
    tokens.push_back(static_cast<int32_t>(target));
  }
  const std::vector<float> inverse_temperature(kTargets, 1.0f / temperature), zeros(kTargets, 0.0f);
  const Values given = golden.values(name + ".upstream");
  const std::vector<float> upstream(given.begin(), given.end());
  const GuardedArray<float> logprob(kTargets), normalizer(kTargets), entropy(kTargets);
  HeadLogprob head;
  head.hidden = hidden;
  head.weight = weight;
  head.num_targets = kTargets;
  head.rows = rows.data();
  head.tokens = tokens.data();
  head.inverse_temperature = inverse_temperature.data();
  head.logprob = logprob;
  head.log_normalizer = normalizer;
  head.entropy = entropy;
  TestDevice::head_logprob_forward(context, head);
  head.grad_logprob = (to_entropy ? zeros : upstream).data();
  head.grad_entropy = to_entropy ? upstream.data() : nullptr;
  head.grad_hidden = grad_hidden;
  head.grad_weight = grad_weight;
  TestDevice::head_logprob_backward(context, head);
  return {logprob.doubles(), entropy.doubles(), grad_hidden.doubles(), grad_weight.doubles()};
}

}  // namespace

TEST("rope matches the golden") {
  const GoldenFile golden("ops");
  constexpr int64_t kTokens = 6;
  constexpr int32_t kHeads = 3, kHeadDim = 16;
  std::vector<int32_t> positions, axis(kHeadDim / 2, 0);
  for (int32_t t = 0; t < kTokens; ++t) positions.push_back(t);
  std::vector<float> inverse_frequency;
  for (int32_t j = 0; j < kHeadDim / 2; ++j)
    inverse_frequency.push_back(static_cast<float>(std::pow(10000.0, -2.0 * j / kHeadDim)));
  TestContext context(1);
  const GuardedTensor cosine = poisoned_tensor({kTokens, kHeadDim / 2}, DType::f32),
                      sine = poisoned_tensor({kTokens, kHeadDim / 2}, DType::f32);
  RopeTable table;
  table.cosine = cosine;
  table.sine = sine;
  table.positions = positions.data();
  table.axis = axis.data();
  table.inverse_frequency = inverse_frequency.data();
  TestDevice::rope_table_forward(context, table);
  for (int64_t batch = 0; batch < 2; ++batch) {
    for (bool backward : {false, true}) {
      const GuardedTensor x = tensor_of(
          {kTokens, kHeads * kHeadDim}, DType::f32,
          rows_of(golden.values(backward ? "rope_theta1e4.upstream" : "rope_theta1e4.x"), batch, kHeads, kTokens, 16));
      Rope rope;
      rope.x = x;
      rope.grad_x = x;
      rope.cosine = cosine;
      rope.sine = sine;
      rope.heads = kHeads;
      rope.head_dim = kHeadDim;
      (backward ? TestDevice::rope_backward : TestDevice::rope_forward)(context, rope);
      const Values want = golden.values(backward ? "rope_theta1e4.grad_x" : "rope_theta1e4.out");
      CHECK_RELATIVE_L2(x.doubles(), rows_of(want, batch, kHeads, kTokens, 16), 2e-7);
    }
  }
}

TEST("attention: causal grouped-query matches the golden") {
  const GoldenFile golden("ops");
  for (int64_t batch = 0; batch < 2; ++batch) check_attention({golden, "sdpa_gqa_causal", 4, 2, 9}, batch, 0);
}

TEST("attention: a row that the golden pads on the left is a group of its own") {
  const GoldenFile golden("ops");
  check_attention({golden, "sdpa_masked", 2, 2, 9}, 0, 0);
  // Its first three positions are padding, which no other one sees and a pack does not hold.
  check_attention({golden, "sdpa_masked", 2, 2, 9}, 1, 3);
}

TEST("head_logprob matches the goldens of linear + log-prob and linear + entropy") {
  const GoldenFile golden("ops");
  for (PathCase path : TestDevice::paths()) {
    PathContext context(2, path);
    const HeadGradients logprob = run_head(context, golden, "linear_logprob", 0.7f, false);
    CHECK_MAX_ABS(logprob.logprob, golden.values("linear_logprob.out"), 2e-5);
    CHECK_RELATIVE_L2(logprob.hidden, golden.values("linear_logprob.grad_h"), 5e-6);
    CHECK_RELATIVE_L2(logprob.weight, golden.values("linear_logprob.grad_w"), 5e-6);
    const HeadGradients entropy = run_head(context, golden, "linear_entropy", 1.0f, true);
    CHECK_MAX_ABS(entropy.entropy, golden.values("linear_entropy.out"), 2e-5);
    CHECK_RELATIVE_L2(entropy.hidden, golden.values("linear_entropy.grad_h"), 1e-5);
    CHECK_RELATIVE_L2(entropy.weight, golden.values("linear_entropy.grad_w"), 1e-5);
  }
}

TEST("patch_embedding matches the golden of a convolution") {
  const GoldenFile golden("ops");
  constexpr int64_t kPatches = 5, kHidden = 8, kColumns = 3 * 2 * 4 * 4;
  for (PathCase path : TestDevice::paths()) {
    PathContext context(2, path);
    const GuardedTensor weight = panel_tensor(kHidden, kColumns, DType::f32, golden.values("conv3d_patch.w")),
                        pixels = tensor_of({kPatches, kColumns}, DType::f32, golden.values("conv3d_patch.x")),
                        out = poisoned_tensor({kPatches, kHidden}, DType::f32),
                        gathered = poisoned_tensor({kPatches, kColumns}, DType::f32),
                        upstream = tensor_of({kPatches, kHidden}, DType::f32, golden.values("conv3d_patch.upstream")),
                        grad_weight = panel_gradient(kHidden, kColumns, DType::f32);
    PatchEmbedding patches;
    patches.out = out;
    patches.weight = weight;
    patches.pixels = pixels.tensor().f32();
    patches.gathered = gathered;
    patches.grad_out = upstream;
    patches.grad_weight = grad_weight;
    TestDevice::patch_embedding_forward(context, patches);
    TestDevice::patch_embedding_backward(context, patches);
    CHECK_RELATIVE_L2(out.doubles(), golden.values("conv3d_patch.out"), 1e-6);
    CHECK_RELATIVE_L2(grad_weight.doubles(), golden.values("conv3d_patch.grad_w"), 1e-6);
  }
}

}  // namespace gavel::test
