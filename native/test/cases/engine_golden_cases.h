// Whole models against transformers in float64 (test/goldens/native.safetensors, written by scripts/goldens/native.py):
// log-probs, entropies, the GRPO loss and the gradient of every parameter, of groups that share their prompt. On the
// TestDevice that the includer names.
#pragma once
#include <cmath>

#include "model/model.h"
#include "test/check.h"
#include "test/golden_file.h"
#include "train/trainer.h"

namespace gavel {
namespace {

// What may lie between the engine and float64: absolute for log-probs and entropies, the norm of the difference over
// the norm for gradients. A parameter whose gradient is rounding alone (a key's bias shifts every score alike) is left
// out.
struct GoldenTolerance {
  double logprob, loss, gradient, smallest;
};
constexpr GoldenTolerance kGoldenF32{1e-5, 1e-5, 2e-5, 1e-4}, kGoldenBf16{0.08, 0.02, 0.06, 1e-2};

class GoldenModel {
 public:
  GoldenModel(const std::string& family, const std::string& folder, DType dtype, CpuPath path)
      : pool_(2),
        context_{&pool_, &scratch_, path.isa, path.amx, false, test::TestDevice::device()},
        family_(family),
        dtype_(dtype) {
    ModelConfig config;
    config.family = family;
    config.dtype = dtype;
    for (const std::string& name : golden_.names(family + ".config."))
      config.numbers[name] = golden_.values(family + ".config." + name);
    Status status = Model::create(config, context_.device, &model_);
    if (!status.ok()) {
      test::fail(__FILE__, __LINE__, status.message);
      return;
    }
    const test::GoldenFile weights(folder + "/model");
    for (const std::string& name : weights.names("")) {
      if (name == "__metadata__") continue;
      const std::vector<double> values = weights.values(name);
      const std::vector<float> floats(values.begin(), values.end());
      status = model_->weights().write(name, TensorKind::value, floats.data(), floats.size());
      if (!status.ok()) test::fail(__FILE__, __LINE__, status.message);
    }
    read_groups();
  }

  void check(const GoldenTolerance& tolerance) {
    if (model_ == nullptr) return;
    const std::atomic<bool> never{false};
    StepOptions options;
    options.entropy = true;
    StepResult scored, trained;
    Trainer trainer(*model_, context_);
    Status status = trainer.logprobs(groups_, options, never, &scored);
    CHECK_EQ(status.message, std::string());
    compare(scored.logprobs, values("logps"), tolerance.logprob, "log-prob");
    compare(scored.entropies, values("entropies"), tolerance.logprob, "entropy");
    options.entropy = false;
    Objective objective;
    objective.kind = Objective::Kind::grpo;
    objective.grpo.loss.eps_low = 0.2;
    objective.grpo.loss.eps_high = 0.28;
    objective.grpo.loss.beta = 0.04;
    objective.grpo.loss.kl_clamp = 0;
    status = trainer.forward_backward(groups_, {objective}, options, never, &trained);
    CHECK_EQ(status.message, std::string());
    CHECK_NEAR(trained.loss, values("loss")[0], tolerance.loss);
    compare(trained.logprobs, values("logps"), tolerance.logprob, "log-prob");
    int compared = 0;
    for (const std::string& name : golden_.names(prefix() + "grad.")) compared += check_gradient(name, tolerance);
    CHECK(compared > 20);
  }

 private:
  std::string prefix() const { return family_ + (dtype_ == DType::bf16 ? ".bf16." : ".fp32."); }
  std::vector<double> values(const std::string& name) const { return golden_.values(prefix() + name); }

  static void compare(const std::vector<float>& got, const std::vector<double>& want, double tolerance,
                      const char* what) {
    CHECK_EQ(got.size(), want.size());
    double worst = 0;
    for (size_t i = 0; i < std::min(got.size(), want.size()); ++i)
      worst = std::max(worst, std::isfinite(got[i]) ? std::fabs(static_cast<double>(got[i]) - want[i]) : 1e30);
    if (!(worst <= tolerance)) test::fail(__FILE__, __LINE__, std::string(what) + " off by " + std::to_string(worst));
  }

  bool check_gradient(const std::string& name, const GoldenTolerance& tolerance) {
    std::vector<float> got;
    const Status status = model_->weights().read(name, TensorKind::gradient, &got);
    if (!status.ok()) {
      test::fail(__FILE__, __LINE__, status.message);
      return false;
    }
    const std::vector<double> want = values("grad." + name);
    CHECK_EQ(got.size(), want.size());
    double difference = 0, norm = 0;
    for (size_t i = 0; i < std::min(got.size(), want.size()); ++i) {
      difference += (got[i] - want[i]) * (got[i] - want[i]);
      norm += want[i] * want[i];
    }
    difference = std::sqrt(difference);
    norm = std::sqrt(norm);
    if (norm < tolerance.smallest) return false;
    if (!(difference <= tolerance.gradient * norm))
      test::fail(__FILE__, __LINE__, "gradient of " + name + " off by " + std::to_string(difference / norm));
    return true;
  }

  void read_groups() {
    const std::vector<double> shapes = golden_.values(family_ + ".groups"),
                              prompts = golden_.values(family_ + ".prompts"),
                              lengths = golden_.values(family_ + ".lengths"),
                              tokens = golden_.values(family_ + ".completions"),
                              advantages = golden_.values(family_ + ".advantages"), old = values("old"),
                              reference = values("reference");
    const bool pictures = !golden_.names(family_ + ".pixels").empty();
    const std::vector<double> pixels = pictures ? golden_.values(family_ + ".pixels") : std::vector<double>(),
                              grid = pictures ? golden_.values(family_ + ".grid") : std::vector<double>();
    size_t prompt = 0, completion = 0, token = 0;
    const size_t count = shapes.size() / 2;
    for (size_t g = 0; g < count; ++g) {
      GroupInput group;
      for (size_t end = prompt + static_cast<size_t>(shapes[2 * g]); prompt < end; ++prompt)
        group.prompt_tokens.push_back(static_cast<int32_t>(prompts[prompt]));
      if (pictures) {
        ImageInput image;
        const size_t size = pixels.size() / count;
        image.pixels = std::vector<float>(pixels.begin() + static_cast<int64_t>(g * size),
                                          pixels.begin() + static_cast<int64_t>((g + 1) * size));
        for (size_t i = 0; i < 3; ++i) image.grid[i] = static_cast<int32_t>(grid[i]);
        group.images.push_back(std::move(image));
      }
      for (size_t end = completion + static_cast<size_t>(shapes[2 * g + 1]); completion < end; ++completion) {
        CompletionInput one;
        one.temperature = 0.9f;
        one.advantage = static_cast<float>(advantages[completion]);
        for (size_t last = token + static_cast<size_t>(lengths[completion]); token < last; ++token) {
          one.tokens.push_back(static_cast<int32_t>(tokens[token]));
          one.old_logprobs.push_back(static_cast<float>(old[token]));
          one.reference_logprobs.push_back(static_cast<float>(reference[token]));
        }
        group.completions.push_back(std::move(one));
      }
      groups_.push_back(std::move(group));
    }
  }

  ThreadPool pool_;
  Scratch scratch_;
  Context context_;
  FlushDenormals flush_;
  test::GoldenFile golden_{"native"};
  std::string family_;
  DType dtype_;
  std::unique_ptr<Model> model_;
  std::vector<GroupInput> groups_;
};

void check_golden(const std::string& family, const std::string& folder) {
  for (const CpuPath& path : test::TestDevice::paths()) {
    if (!path.amx) GoldenModel(family, folder, DType::f32, path).check(kGoldenF32);
    GoldenModel(family, folder, DType::bf16, path).check(kGoldenBf16);
  }
}

TEST("engine golden: Qwen2, shared prompts against rows alone in float64") { check_golden("qwen2", "micro-text"); }
TEST("engine golden: Qwen2.5-VL with pictures") { check_golden("qwen2_5_vl", "micro-vl"); }
TEST("engine golden: Qwen3, norms of queries and keys") { check_golden("qwen3", "micro-qwen3"); }

}  // namespace
}  // namespace gavel
