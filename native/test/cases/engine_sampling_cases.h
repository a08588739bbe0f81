// The sampler on the TestDevice that the includer names: what a completion is does not depend on who decodes beside it,
// on how steps are enqueued, or on when their results are read.
#pragma once
#include "test/cases/sampling_fixture.h"

namespace gavel {

TEST("engine sampling: completions are the same for any number of rows, and stop where their tokens say") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Engine engine(dtype, 1);
    const std::vector<SampleRequest> free = mixed_requests(3);
    Completions alone;
    SampleStats stats;
    CHECK_EQ(sample_all(engine, free, 1, &alone, &stats).message, std::string());
    // A token that was drawn in the middle of a completion ends it there.
    std::vector<SampleRequest> stopping = free;
    for (const auto& [key, one] : alone) {
      if (key.second == 0) stopping[static_cast<size_t>(key.first)].stop_tokens = {one.tokens[one.tokens.size() / 2]};
    }
    int32_t stopped = 0;
    for (const int32_t max_rows : {3, 16}) {
      Completions cut;
      SampleStats own;
      CHECK_EQ(sample_all(engine, stopping, max_rows, &cut, &own).message, std::string());
      CHECK_EQ(cut.size(), alone.size());
      int64_t tokens = 0;
      for (const auto& [key, one] : cut) {
        const Completion& whole = alone.at(key);
        const std::vector<int32_t>& stops = stopping[static_cast<size_t>(key.first)].stop_tokens;
        const auto end = std::find(whole.tokens.begin(), whole.tokens.end(), stops.front());
        const bool stops_there = end != whole.tokens.end();
        const auto length = static_cast<size_t>(end - whole.tokens.begin()) + (stops_there ? 1 : 0);
        CHECK_EQ(one.tokens.size(), length);
        CHECK_EQ(one.stopped, stops_there);
        CHECK(same(one, whole, length));
        stopped += stops_there ? 1 : 0;
        tokens += static_cast<int64_t>(length);
      }
      CHECK_EQ(own.completion_tokens, tokens);
      CHECK_EQ(own.completions, static_cast<int64_t>(cut.size()));
    }
    CHECK(stopped >= 10);
  }
}

TEST("engine sampling: an aborted call leaves nothing behind that the next one sees") {
  Engine engine(DType::bf16, 1);
  Completions before, cut, after;
  SampleStats stats;
  const std::vector<SampleRequest> requests = mixed_requests(5);
  CHECK_EQ(sample_all(engine, requests, 4, &before, &stats).message, std::string());
  std::atomic<bool> abort{false};
  CHECK(sample_all(engine, requests, 4, &cut, &stats, &abort).code == Code::aborted);
  CHECK(!cut.empty() && cut.size() < before.size());
  CHECK_EQ(sample_all(engine, requests, 4, &after, &stats).message, std::string());
  CHECK_EQ(after.size(), before.size());
  for (const auto& [key, one] : after) {
    CHECK_EQ(one.tokens.size(), before.at(key).tokens.size());
    CHECK(same(one, before.at(key), one.tokens.size()));
  }
}

TEST("engine sampling: logits that are not finite are an error that names request and token") {
  Engine engine(DType::f32, 1);
  std::vector<float> norm;
  Weights& weights = engine.model->weights();
  CHECK(weights.read("model.norm.weight", TensorKind::value, &norm).ok());
  norm[5] = std::nanf("");
  CHECK(weights.write("model.norm.weight", TensorKind::value, norm.data(), norm.size()).ok());
  Completions done;
  SampleStats stats;
  const Status status = sample_all(engine, steady_request(2, 9), 2, &done, &stats);
  CHECK(status.code == Code::non_finite);
  CHECK(status.message.find("request 0 has none at token 0") != std::string::npos);
  CHECK(done.empty());
}

TEST("engine sampling: steady decoding on a device repeats graphs and waits for no step's own result") {
  Engine engine(DType::bf16, 1);
  Completions done;
  SampleStats stats;
  CHECK_EQ(sample_all(engine, steady_request(3, 100), 4, &done, &stats).message, std::string());
  CHECK_EQ(stats.decode_steps, 100);
  if (engine.context.device == nullptr) {
    CHECK_EQ(stats.replayed_steps + stats.captured_graphs + stats.device_waits, 0);
    return;
  }
  CHECK(stats.replayed_steps >= 80);
  CHECK(stats.captured_graphs >= 1 && stats.captured_graphs <= 10);
  // For the prompt, and for memory that grows; not for steps.
  CHECK(stats.device_waits <= 20);
}

}  // namespace gavel
