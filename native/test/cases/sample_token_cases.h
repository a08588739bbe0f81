// sample_token: draws, neighbours, rows that cannot be drawn from; for the TestDevice that the includer names.
#pragma once
#include "reference/kernels.h"
#include "test/op_test.h"

namespace gavel::test {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Batch {
  int32_t vocabulary;
  std::vector<float> logits;
  std::vector<float> log_normalizer;
  std::vector<SampleOptions> options;
  std::vector<int32_t> banned;

  int32_t rows() const { return static_cast<int32_t>(options.size()); }
  void add(const std::vector<float>& row, const SampleOptions& one) {
    double largest = -1e300, sum = 0;
    for (float value : row) largest = std::max<double>(largest, value);
    for (float value : row) sum += std::exp(value - largest);
    logits.insert(logits.end(), row.begin(), row.end());
    log_normalizer.push_back(static_cast<float>(largest + std::log(sum)));
    options.push_back(one);
  }
};

struct Drawn {
  GuardedArray<int32_t> tokens;
  GuardedArray<float> logprob, log_kept_mass;
};

inline Drawn run(void (*forward)(Context&, const SampleToken&), Context& context, const Batch& batch,
                 const float* tile_sums = nullptr) {
  Drawn result{GuardedArray<int32_t>(batch.rows()), GuardedArray<float>(batch.rows()),
               GuardedArray<float>(batch.rows())};
  const GuardedArray<float> logits(batch.logits);
  SampleToken p;
  p.num_rows = batch.rows();
  p.vocabulary = batch.vocabulary;
  p.logits = logits;
  p.log_normalizer = batch.log_normalizer.data();
  p.tile_sums = tile_sums;
  p.options = batch.options.data();
  p.banned = batch.banned.data();
  p.num_banned = static_cast<int32_t>(batch.banned.size());
  p.tokens = result.tokens;
  p.logprob = result.logprob;
  p.log_kept_mass = result.log_kept_mass;
  forward(context, p);
  return result;
}

inline SampleOptions options_of(int32_t top_k, float top_p, float min_p, uint32_t position = 0, bool greedy = false) {
  SampleOptions options;
  options.key = {17, 3, 1, position};
  options.top_k = top_k;
  options.top_p = top_p;
  options.min_p = min_p;
  options.greedy = greedy;
  return options;
}

inline std::vector<float> random_row(int32_t vocabulary, uint64_t seed, double scale) {
  const std::vector<double> values = random_values(vocabulary, seed, scale);
  return {values.begin(), values.end()};
}

}  // namespace

TEST("sample_token draws what the reference draws, with every filter, ban and path") {
  for (int32_t vocabulary : {1, 2, 48, 255, 256, 257, 1000, 5003}) {
    Batch batch{vocabulary, {}, {}, {}, {}};
    uint32_t position = 0;
    for (double scale : {0.0, 0.3, 4.0, 20.0}) {
      for (const auto& [top_k, top_p, min_p] : {std::tuple{0, 1.0f, 0.0f},
                                                {5, 1.0f, 0.0f},
                                                {0, 0.9f, 0.0f},
                                                {0, 0.2f, 0.0f},
                                                {0, 1.0f, 0.05f},
                                                {40, 0.95f, 0.01f},
                                                {700, 0.8f, 0.0f},
                                                {0, 0.7f, 0.1f}}) {
        for (bool greedy : {false, true}) {
          ++position;
          batch.add(random_row(vocabulary, position, scale), options_of(top_k, top_p, min_p, position, greedy));
        }
      }
    }
    for (bool bans : {false, true}) {
      if (bans && vocabulary < 48) continue;
      batch.banned = bans ? std::vector<int32_t>{0, 3, 17, 40, vocabulary - 1} : std::vector<int32_t>{};
      TestContext plain(1, Isa::generic);
      const Drawn expected = run(reference::sample_token_forward, plain, batch),
                  first = run(TestDevice::sample_token_forward, plain, batch);
      CHECK_MAX_ABS(first.log_kept_mass.doubles(), expected.log_kept_mass.doubles(), 2e-5);
      int32_t different = 0;
      for (int64_t row = 0; row < batch.rows(); ++row) {
        different += first.tokens[row] != expected.tokens[row] ? 1 : 0;
        CHECK(first.tokens[row] >= 0 && first.tokens[row] < vocabulary);
        CHECK(std::find(batch.banned.begin(), batch.banned.end(), first.tokens[row]) == batch.banned.end());
        CHECK_EQ(first.logprob[row], batch.logits[static_cast<size_t>(row * vocabulary + first.tokens[row])] -
                                         batch.log_normalizer[static_cast<size_t>(row)]);
      }
      // A uniform number within rounding of a token's edge would go either way; none does in this data.
      CHECK_EQ(different, 0);
      for (Isa isa : TestDevice::isas()) {
        for (int threads : TestDevice::threads()) {
          TestContext context(threads, isa);
          const Drawn other = run(TestDevice::sample_token_forward, context, batch);
          CHECK(same_bits(first.tokens, other.tokens));
          CHECK(same_bits(first.logprob, other.logprob));
          CHECK(same_bits(first.log_kept_mass, other.log_kept_mass));
        }
      }
    }
  }
}

TEST("sample_token draws a row alike alone and in any batch") {
  const int32_t vocabulary = 3001;
  Batch batch{vocabulary, {}, {}, {}, {5, 900}};
  for (uint32_t row = 0; row < 12; ++row)
    batch.add(random_row(vocabulary, row, 5.0), options_of(row % 2 == 0 ? 0 : 50, row % 3 == 0 ? 1.0f : 0.9f, 0, row));
  TestContext context(2);
  const Drawn all = run(TestDevice::sample_token_forward, context, batch);
  for (uint32_t row = 0; row < 12; ++row) {
    Batch alone{vocabulary, {}, {}, {}, {5, 900}};
    alone.add({batch.logits.begin() + row * vocabulary, batch.logits.begin() + (row + 1) * vocabulary},
              batch.options[row]);
    const Drawn one = run(TestDevice::sample_token_forward, context, alone);
    CHECK_EQ(one.tokens[0], all.tokens[row]);
    CHECK_EQ(one.log_kept_mass[0], all.log_kept_mass[row]);
  }
}

TEST("sample_token reports rows it cannot draw from and draws their neighbours") {
  for (int32_t vocabulary : {30, 700}) {
    for (bool greedy : {false, true}) {
      for (const auto& [top_k, top_p] : {std::pair{0, 1.0f}, {5, 1.0f}, {0, 0.9f}}) {
        Batch batch{vocabulary, {}, {}, {}, {2}};
        const std::vector<float> good = random_row(vocabulary, 1, 3.0);
        std::vector<float> nan = good, infinite = good, one_left(good.size(), -kInfinity), all_nan(good.size(), kNaN);
        nan[static_cast<size_t>(vocabulary - 2)] = kNaN;
        infinite[7] = kInfinity;
        const std::vector<float> none = one_left;
        one_left[11] = 2.0f;
        for (const std::vector<float>& row : {good, nan, infinite, all_nan, none, one_left, good})
          batch.add(row, options_of(top_k, top_p, 0, 4, greedy));
        for (float& value : batch.log_normalizer)
          value = batch.log_normalizer[0];  // even a finite normaliser must not hide it
        for (Isa isa : TestDevice::isas()) {
          TestContext context(2, isa);
          const Drawn drawn = run(TestDevice::sample_token_forward, context, batch);
          for (int row : {1, 2, 3, 4}) {
            CHECK_EQ(drawn.tokens[row], -1);
            CHECK(drawn.logprob[row] != drawn.logprob[row]);
            CHECK(drawn.log_kept_mass[row] != drawn.log_kept_mass[row]);
          }
          CHECK_EQ(drawn.tokens[5], 11);
          CHECK(drawn.tokens[0] >= 0 && drawn.tokens[0] == drawn.tokens[6]);
          batch.log_normalizer[0] = kNaN;
          CHECK_EQ(run(TestDevice::sample_token_forward, context, batch).tokens[0], -1);
          batch.log_normalizer[0] = batch.log_normalizer[1];
        }
      }
    }
  }
}

TEST("sample_token greedy takes the lowest id of equal logits and skips bans") {
  Batch batch{600, {}, {}, {}, {300}};
  std::vector<float> row(600, 0.0f);
  row[300] = 9;
  row[310] = row[450] = 7;
  batch.add(row, options_of(0, 1, 0, 0, true));
  for (Isa isa : TestDevice::isas()) {
    TestContext context(1, isa);
    CHECK_EQ(run(TestDevice::sample_token_forward, context, batch).tokens[0], 310);
  }
}

}  // namespace gavel::test
