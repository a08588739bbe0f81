// The engine in the fastest mode: what sampling stored and what a pass computes agree within rounding, a call repeats
// its bits, and the exact mode on the same device is as it was.
#include "core/device.h"
#include "test/cuda/device.h"
#include "test/cuda/plugin.h"
// The device comes first.
#include "test/cases/engine_fixture.h"

namespace gavel {
namespace {

struct Mode {
  explicit Mode(Exactness exactness) {
    test::TestDevice::device()->set_exactness(exactness);
    test::set_device_processors(132);
  }
  ~Mode() {
    test::TestDevice::device()->set_exactness(Exactness::bitwise);
    test::set_device_processors(0);
  }
};

struct Run {
  std::vector<float> sampled, scored, trained;
};

// Four completions of two prompts, one of which spans several key blocks; scored and trained on in one pack.
Run run(Engine& engine, Exactness exactness) {
  const Mode mode(exactness);
  const std::atomic<bool> never{false};
  std::vector<GroupInput> groups{group_of(1, 200, false), group_of(2, 20, true)};
  std::vector<SampleRequest> requests;
  for (uint32_t item = 0; item < 2; ++item) {
    SampleRequest request;
    request.id = item;
    request.prompt_tokens = groups[item].prompt_tokens;
    request.images = groups[item].images;
    request.count = 2;
    request.max_new_tokens = 3;
    requests.push_back(std::move(request));
  }
  std::vector<std::vector<Completion>> done(2, std::vector<Completion>(2));
  SampleStats stats;
  Status status = Sampler(*engine.model, engine.context)
                      .run(
                          requests, {4, {kImageToken}}, never,
                          [&](std::vector<Completion> finished) {
                            for (Completion& one : finished)
                              done[static_cast<size_t>(one.request)][static_cast<size_t>(one.sample)] = std::move(one);
                          },
                          &stats);
  CHECK_EQ(status.message, std::string());
  Run made;
  for (size_t g = 0; g < 2; ++g) {
    for (const Completion& one : done[g]) {
      CompletionInput input;
      input.tokens = one.tokens;
      groups[g].completions.push_back(input);
      made.sampled.insert(made.sampled.end(), one.logprobs.begin(), one.logprobs.end());
    }
  }
  Trainer trainer(*engine.model, engine.context);
  StepResult scored, trained;
  CHECK(trainer.logprobs(groups, {}, never, &scored).ok());
  CHECK(trainer.forward_backward(groups, {Objective{}}, {}, never, &trained).ok());
  made.scored = scored.logprobs;
  made.trained = trained.logprobs;
  CHECK(made.sampled.size() >= 8 && made.sampled.size() == made.scored.size());
  return made;
}

double largest(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(static_cast<double>(a[i]) - b[i]));
  return most;
}

}  // namespace

TEST("cuda fastest engine: sampled and trained log-probs agree within rounding, those of the exact mode in every bit") {
  for (DType dtype : {DType::f32, DType::bf16}) {
    // Deep enough for a product in parts.
    Engine engine(dtype, 1, cpu_paths().back(),
                  [](ModelConfig& config) { config.numbers["intermediate_size"] = {512}; });
    const Run exact = run(engine, Exactness::bitwise);
    CHECK_EQ(different_bits(exact.scored, exact.sampled), 0);
    CHECK_EQ(different_bits(exact.trained, exact.sampled), 0);
    const Run fastest = run(engine, Exactness::fastest);
    if (dtype == DType::bf16) {
      const Run repeated = run(engine, Exactness::fastest);
      CHECK_EQ(different_bits(fastest.sampled, repeated.sampled), 0);
      CHECK_EQ(different_bits(fastest.trained, repeated.trained), 0);
    }
    const double tolerance = dtype == DType::f32 ? 2e-5 : 0.1;
    CHECK(largest(fastest.scored, fastest.sampled) <= tolerance);
    CHECK(largest(fastest.trained, fastest.sampled) <= tolerance);
    // Otherwise nothing was cut.
    CHECK(different_bits(fastest.scored, exact.scored) != 0 || fastest.sampled != exact.sampled);
  }
}

}  // namespace gavel
