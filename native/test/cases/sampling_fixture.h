// Requests for the sampler, and their completions by request and sample, on the engine of engine_fixture.h.
#pragma once
#include <map>

#include "test/cases/engine_fixture.h"

namespace gavel {
namespace {

using Completions = std::map<std::pair<int32_t, int32_t>, Completion>;

inline Status sample_all(Engine& engine, const std::vector<SampleRequest>& requests, int32_t max_rows,
                         Completions* done, SampleStats* stats, std::atomic<bool>* abort_after_first = nullptr) {
  const std::atomic<bool> never{false};
  const auto keep = [&](std::vector<Completion> finished) {
    if (abort_after_first != nullptr) abort_after_first->store(true);
    for (Completion& one : finished) {
      const std::pair key{one.request, one.sample};
      CHECK(done->find(key) == done->end());
      (*done)[key] = std::move(one);
    }
  };
  return Sampler(*engine.model, engine.context)
      .run(requests, {max_rows, {kImageToken}}, abort_after_first == nullptr ? never : *abort_after_first, keep, stats);
}

inline bool same(const Completion& a, const Completion& b, size_t length) {
  return a.tokens.size() >= length && b.tokens.size() >= length &&
         std::equal(a.tokens.begin(), a.tokens.begin() + static_cast<std::ptrdiff_t>(length), b.tokens.begin()) &&
         std::memcmp(a.logprobs.data(), b.logprobs.data(), length * sizeof(float)) == 0 &&
         std::memcmp(a.log_kept_mass.data(), b.log_kept_mass.data(), length * sizeof(float)) == 0;
}

// Prompts that end before, at and after a page's end, completions that cross pages, filters and pictures.
inline std::vector<SampleRequest> mixed_requests(uint32_t seed) {
  std::vector<SampleRequest> requests;
  for (uint32_t item = 0; item < 5; ++item) {
    const auto pick = [&](uint32_t position, uint32_t below) { return draw(seed * 100 + item, position) % below; };
    const int32_t lengths[] = {64, 63, 1 + static_cast<int32_t>(pick(1, 30)), 65, 40};
    GroupInput group = group_of(seed * 10 + item, lengths[item], item == 2);
    SampleRequest request;
    request.id = item;
    request.seed = seed;
    request.prompt_tokens = std::move(group.prompt_tokens);
    request.images = std::move(group.images);
    request.count = 1 + static_cast<int32_t>(pick(2, 3));
    request.max_new_tokens = 1 + static_cast<int32_t>(item == 4 ? 30 : pick(3, 9));
    request.temperature = item == 3 ? 0.0f : 0.9f;
    request.top_p = item == 1 ? 0.8f : 1.0f;
    requests.push_back(std::move(request));
  }
  return requests;
}

inline std::vector<SampleRequest> steady_request(int32_t count, int32_t tokens) {
  SampleRequest request;
  request.prompt_tokens = group_of(7, 20, false).prompt_tokens;
  request.count = count;
  request.max_new_tokens = tokens;
  return {request};
}

}  // namespace
}  // namespace gavel
