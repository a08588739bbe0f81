#include "test/processor.h"
// The device comes first.
#include "test/cases/head_logprob_cases.h"

namespace gavel::test {
namespace {

// An objective that knows its coefficients, and what it was asked for.
struct Asked {
  const Problem& problem;
  const Outputs* want = nullptr;  // of the two-pass forward: must be there, bit for bit, when a block is asked for
  const Outputs* got = nullptr;
  std::vector<float> grad_logprob, grad_entropy;
  int32_t end = 0, blocks = 0;
  bool in_order = true, same = true;

  explicit Asked(const Problem& problem_)
      : problem(problem_),
        grad_logprob(static_cast<size_t>(problem_.targets), std::numeric_limits<float>::quiet_NaN()),
        grad_entropy(grad_logprob) {}
  void attach(HeadLogprob& p, bool with_entropy) {
    p.grad_logprob = grad_logprob.data();
    p.grad_entropy = with_entropy ? grad_entropy.data() : nullptr;
    p.coefficients = {this, fill};
  }
  static void fill(void* objective, int32_t begin, int32_t end) {
    Asked& asked = *static_cast<Asked*>(objective);
    asked.in_order = asked.in_order && begin == asked.end && end > begin;
    asked.end = end;
    ++asked.blocks;
    const size_t bytes = static_cast<size_t>(end - begin) * sizeof(float);
    if (asked.want != nullptr) {
      for (const auto& values : {&Outputs::logprob, &Outputs::log_normalizer, &Outputs::entropy}) {
        asked.same = asked.same && std::memcmp(asked.got->*values + begin, asked.want->*values + begin, bytes) == 0;
      }
    }
    std::memcpy(asked.grad_logprob.data() + begin, asked.problem.grad_logprob.data() + begin, bytes);
    std::memcpy(asked.grad_entropy.data() + begin, asked.problem.grad_entropy.data() + begin, bytes);
  }
};

}  // namespace

TEST("head_logprob: one pass has the bits of two, by blocks of targets") {
  for (DType dtype : kDTypes) {
    for (auto [vocabulary, hidden, targets] :
         {std::array<int64_t, 3>{1, 3, 2}, {255, 33, 5}, {513, 17, 15}, {770, 65, 47}, {300, 34, 2100}}) {
      Problem problem(targets, vocabulary, hidden, targets, dtype, 41 + static_cast<uint64_t>(vocabulary));
      // A row whose targets go on in the next block, as the last prompt row of a large group.
      for (int64_t i = 900; i < std::min<int64_t>(targets, 1100); ++i) {
        problem.row_of[static_cast<size_t>(i)] = problem.row_of[900];
      }
      for (float& value : problem.grad_entropy) value *= 0.1f;
      for (PathCase path : gemm_paths()) {
        for (bool with_entropy : {false, true}) {
          const Outputs want(targets, vocabulary);
          const GuardedTensor want_hidden = poisoned_tensor({problem.rows, hidden}, dtype);
          GuardedTensor want_weight = panel_gradient(vocabulary, hidden, dtype);
          const std::vector<double> before = random_values(vocabulary * hidden, 77, 0.01);
          want_weight.assign(before);
          HeadLogprob two = problem.parameters();
          want.attach(two);
          two.grad_entropy = with_entropy ? problem.grad_entropy.data() : nullptr;
          two.grad_hidden = want_hidden;
          two.grad_weight = want_weight;
          PathContext gold(1, gold_path(path));
          cpu::head_logprob_forward(gold, two);
          cpu::head_logprob_backward(gold, two);
          for (int threads : {1, 2, 6}) {
            PathContext context(threads, path);
            for (int wanted = 0; wanted < 4; ++wanted) {  // bit 0: grad_hidden, bit 1: grad_weight
              const Outputs got(targets, vocabulary);
              const GuardedTensor grad_hidden = poisoned_tensor({problem.rows, hidden}, dtype);
              GuardedTensor grad_weight = panel_gradient(vocabulary, hidden, dtype);
              grad_weight.assign(before);
              HeadLogprob one = problem.parameters();
              got.attach(one);
              one.logits = nullptr;
              if (threads == 2) one.tile_sums = nullptr;
              if ((wanted & 1) != 0) one.grad_hidden = grad_hidden;
              if ((wanted & 2) != 0) one.grad_weight = grad_weight;
              Asked asked(problem);
              asked.attach(one, with_entropy);
              asked.want = &want;
              asked.got = &got;
              cpu::head_logprob_backward(context, one);
              CHECK(asked.in_order);
              CHECK(asked.same);
              CHECK_EQ(asked.end, targets);
              if (threads != 2) CHECK(got.tile_sums.doubles() == want.tile_sums.doubles());
              const bool keeps = wanted != 0 && !(path.amx && dtype == DType::bf16);
              if (targets > 2000 && keeps) CHECK(asked.blocks > 1);
              if (one.grad_hidden) CHECK(same_bits(grad_hidden, want_hidden));
              if (one.grad_weight) CHECK(same_bits(grad_weight, want_weight));
            }
          }
        }
      }
    }
  }
}

TEST("head_logprob: memory of a large vocabulary, one pass and two") {
  // An idle pool computes nothing: what is reserved is all that is looked at.
  const int64_t targets = 2048, vocabulary = 151936, hidden = 896;
  const std::vector<int32_t> rows(targets), tokens(targets);
  std::vector<float> values(targets);
  for (DType dtype : kDTypes) {
    for (PathCase path : gemm_paths()) {
      for (int threads : {1, 2, 16}) {
        for (bool one_pass : {false, true}) {
          ThreadPool pool = ThreadPool::idle(threads);
          Scratch scratch;
          Context context{&pool, &scratch, path.isa, path.amx, true};
          HeadLogprob p;
          p.hidden.shape = {targets, hidden};
          p.hidden.dtype = dtype;
          p.weight = p.hidden;
          p.weight.shape = {vocabulary, hidden};
          p.num_targets = static_cast<int32_t>(targets);
          p.rows = rows.data();
          p.tokens = tokens.data();
          p.logprob = p.log_normalizer = p.entropy = values.data();
          p.grad_logprob = values.data();
          p.grad_hidden = p.hidden;
          p.grad_hidden.data = values.data();
          p.grad_weight = p.weight;
          p.grad_weight.dtype = DType::f32;
          p.grad_weight.data = values.data();
          if (one_pass) {
            p.coefficients.fill = [](void*, int32_t, int32_t) {};
          } else {
            cpu::head_logprob_forward(context, p);
          }
          cpu::head_logprob_backward(context, p);
          const double reserved = static_cast<double>(scratch.size_bytes());
          const bool keeps = one_pass && !(path.amx && dtype == DType::bf16);
          CHECK_LE(reserved, keeps ? 128e6 : threads <= 4 ? 16e6 : 24e6);
          if (keeps) CHECK(reserved > 64e6);
        }
      }
    }
  }
}

}  // namespace gavel::test
