// The sampler's bounds: what it may take is checked before it runs, and strings end a completion where they are whole.
#include "sample/sampler.h"

#include <limits>
#include <map>

#include "core/memory.h"
#include "sample/kv_pool.h"
#include "test/check.h"

namespace gavel::test {
namespace {

struct Engine {
  ThreadPool pool{2};
  Scratch scratch;
  Context context{&pool, &scratch, detect_isa(), detect_amx()};
  std::unique_ptr<Model> model;
  ModelConfig config;
  FlushDenormals flush;

  Engine() {
    config.family = "qwen2";
    config.numbers = {{"vocab_size", {130}},      {"hidden_size", {32}},        {"intermediate_size", {48}},
                      {"num_hidden_layers", {2}}, {"num_attention_heads", {2}}, {"num_key_value_heads", {1}},
                      {"head_dim", {16}},         {"tie_word_embeddings", {1}}};
    config.prompt_cache_bytes = 1 << 20;
    const Status status = Model::create(config, nullptr, &model);
    if (!status.ok()) fail(__FILE__, __LINE__, status.message);
    model->weights().initialize(3, 0.2);
  }
  Status run(const std::vector<SampleRequest>& requests, const SampleSettings& settings,
             std::map<std::pair<int32_t, int32_t>, Completion>* done, SampleStats* stats) {
    const std::atomic<bool> never{false};
    return Sampler(*model, context)
        .run(
            requests, settings, never,
            [&](std::vector<Completion> finished) {
              for (Completion& one : finished) (*done)[{one.request, one.sample}] = std::move(one);
            },
            stats);
  }
};

SampleRequest request_of(int32_t count, int32_t tokens) {
  SampleRequest request;
  request.prompt_tokens = {1, 2, 3};
  request.count = count;
  request.max_new_tokens = tokens;
  return request;
}

// Token t adds the text of t and a full stop, but for multiples of 5, which add nothing.
SampleSettings settings_with_texts() {
  SampleSettings settings;
  settings.max_rows = 7;
  settings.token_bytes.offsets.push_back(0);
  for (int32_t token = 0; token < 130; ++token) {
    const std::string text = token % 5 == 0 ? "" : std::to_string(token) + ".";
    settings.token_bytes.bytes.insert(settings.token_bytes.bytes.end(), text.begin(), text.end());
    settings.token_bytes.offsets.push_back(static_cast<int32_t>(settings.token_bytes.bytes.size()));
  }
  return settings;
}

}  // namespace

TEST("sampler: keys and values beyond the memory there is are refused with both numbers, and the next run goes on") {
  Engine engine;
  std::map<std::pair<int32_t, int32_t>, Completion> done;
  SampleStats stats;
  SampleSettings settings;
  settings.max_rows = 1 << 20;
  const Status refused = engine.run({request_of(1 << 20, 60'000)}, settings, &done, &stats);
  CHECK(refused.code == Code::out_of_memory);
  CHECK_EQ(refused.fields.size(), size_t{3});
  CHECK(refused.message.find("Lower `maxRows` (about ") != std::string::npos);
  CHECK(done.empty());
  CHECK(engine.run({request_of(4, 6)}, settings, &done, &stats).ok());
  CHECK_EQ(done.size(), size_t{4});
}

TEST("sampler: counts of any size are refused or cut to the model's positions, never wrapped around") {
  Engine engine;
  std::map<std::pair<int32_t, int32_t>, Completion> done;
  SampleStats stats;
  constexpr int32_t kMost = std::numeric_limits<int32_t>::max();
  SampleSettings settings;
  for (const auto& [count, rows] : {std::pair{1, kMost}, {kMost, 1}, {kMost, kMost}, {7, 256}}) {
    settings.max_rows = rows;
    const Status status = engine.run({request_of(count, kMost), request_of(count, kMost)}, settings, &done, &stats);
    CHECK(status.code == Code::out_of_memory);
    CHECK(done.empty());
  }
  ModelConfig limited = engine.config;
  limited.numbers["max_position_embeddings"] = {40};
  CHECK(Model::create(limited, nullptr, &engine.model).ok());
  engine.model->weights().initialize(3, 0.2);
  settings.max_rows = 4;
  CHECK(engine.run({request_of(2, kMost)}, settings, &done, &stats).ok());
  CHECK_EQ(done.size(), size_t{2});
  for (const auto& [key, completion] : done) CHECK_EQ(completion.tokens.size(), size_t{37});
  CHECK_EQ(stats.kv_bytes, 3 * 2 * static_cast<size_t>(KvPool::page_bytes(engine.model->architecture(), DType::f32)));
}

TEST("sampler: a completion ends with the token that completes a stop string, wherever tokens cut it") {
  Engine engine;
  SampleSettings settings = settings_with_texts();
  SampleRequest free = request_of(40, 60);
  std::map<std::pair<int32_t, int32_t>, Completion> whole, cut;
  SampleStats stats;
  CHECK(engine.run({free}, settings, &whole, &stats).ok());
  free.stop_strings = {"1.1", "7.", "12.8"};
  CHECK(engine.run({free}, settings, &cut, &stats).ok());
  int64_t stopped = 0, across = 0;
  for (const auto& [which, completion] : cut) {
    const std::vector<int32_t>& drawn = whole[which].tokens;
    // The definition: the shortest prefix whose text contains one of them.
    std::string text;
    size_t length = 0;
    bool found = false;
    while (!found && length < drawn.size()) {
      text += settings.token_bytes.of(drawn[length++]);
      for (const std::string& stop : free.stop_strings) found = found || text.find(stop) != std::string::npos;
    }
    CHECK_EQ(completion.tokens.size(), length);
    CHECK_EQ(completion.stopped, found);
    CHECK(std::equal(completion.tokens.begin(), completion.tokens.end(), drawn.begin()));
    stopped += found ? 1 : 0;
    across += found && text.find("7.") == std::string::npos ? 1 : 0;
  }
  CHECK(stopped > 20 && across > 0);
}

TEST("sampler: a ban of every token is refused, of all but one it draws that one") {
  Engine engine;
  std::map<std::pair<int32_t, int32_t>, Completion> done;
  SampleStats stats;
  SampleSettings settings;
  for (int32_t token = 0; token < 200; ++token) {
    if (token != 7) settings.banned_tokens.push_back(token);
  }
  CHECK(engine.run({request_of(1, 3)}, settings, &done, &stats).ok());
  CHECK(done.at({0, 0}).tokens == std::vector<int32_t>({7, 7, 7}));
  settings.banned_tokens.push_back(7);
  const Status status = engine.run({request_of(1, 3)}, settings, &done, &stats);
  CHECK(status.code == Code::invalid_argument);
  CHECK(status.message.find("at least one token") != std::string::npos);
}

TEST("sampler: stop strings without the bytes of tokens, or empty ones, are refused") {
  Engine engine;
  std::map<std::pair<int32_t, int32_t>, Completion> done;
  SampleStats stats;
  SampleRequest request = request_of(1, 2);
  request.stop_strings = {"a"};
  CHECK(engine.run({request}, {}, &done, &stats).code == Code::invalid_argument);
  request.stop_strings = {""};
  CHECK(engine.run({request}, settings_with_texts(), &done, &stats).code == Code::invalid_argument);
}

TEST("sampler: a prompt drawn from again is not computed again, until weights change") {
  Engine engine;
  SampleSettings settings;
  std::map<std::pair<int32_t, int32_t>, Completion> first, second, third;
  SampleStats stats[3];
  CHECK(engine.run({request_of(3, 9)}, settings, &first, &stats[0]).ok());
  CHECK(engine.run({request_of(3, 9)}, settings, &second, &stats[1]).ok());
  CHECK_EQ(stats[0].reused.prompt_tokens, 0);
  CHECK_EQ(stats[1].reused.prompt_tokens, 3);
  for (const auto& [which, completion] : first) CHECK(second[which].tokens == completion.tokens);
  engine.model->prompt_cache().drop_all();
  CHECK_EQ(engine.model->prompt_cache().size_bytes(), size_t{0});
  CHECK(engine.run({request_of(3, 9)}, settings, &third, &stats[2]).ok());
  CHECK_EQ(stats[2].reused.prompt_tokens, 0);
}

TEST("prompt cache: bounded in bytes; what a call uses is not put out for the same call") {
  PromptCache cache;
  cache.set_budget(1000);
  const auto features = [](size_t bytes) {
    auto kept = std::make_shared<KeptFeatures>();
    kept->data.resize(bytes);
    return kept;
  };
  const auto put = [&](uint64_t name, size_t bytes) {
    if (!cache.admits(bytes)) return false;
    cache.keep({name, 0}, features(bytes));
    return true;
  };
  cache.begin_call();
  CHECK(put(1, 400) && put(2, 400));
  CHECK(!put(3, 400));
  CHECK(!put(4, 1001));
  cache.begin_call();
  CHECK(cache.features({1, 0}) != nullptr);
  CHECK(put(3, 400));
  CHECK(cache.features({2, 0}) == nullptr);
  CHECK(cache.features({1, 0}) != nullptr);
  CHECK_EQ(cache.size_bytes(), size_t{800});
  CHECK(check_memory(size_t{1} << 50, "a test", "").code == Code::out_of_memory);
  CHECK_EQ(cache.size_bytes(), size_t{0});
  CHECK(put(1, 400));
  cache.set_budget(0);
  CHECK_EQ(cache.size_bytes(), size_t{0});
  CHECK(!put(1, 1));
}

}  // namespace gavel::test
