// micro_batches: budget, order, units of linked groups; and the rows that reward tokens take in a pack.
#include "train/micro_batches.h"

#include "model/pack.h"
#include "test/op_test.h"

namespace gavel::test {
namespace {

constexpr int32_t kReward = 9;

GroupInput group_of(std::vector<int32_t> prompt, std::vector<std::vector<int32_t>> completions) {
  GroupInput group;
  group.prompt_tokens = std::move(prompt);
  for (std::vector<int32_t>& tokens : completions) {
    group.completions.emplace_back();
    group.completions.back().tokens = std::move(tokens);
  }
  return group;
}

}  // namespace

TEST("micro_batches fills packs in order and never parts linked groups") {
  const std::vector<GroupInput> groups(6, group_of({1, 2, 3}, {{4, 5, 6}}));  // 5 rows each
  using Batches = std::vector<std::vector<int32_t>>;
  CHECK(micro_batches(groups, 1000, -1, {}) == (Batches{{0, 1, 2, 3, 4, 5}}));
  CHECK(micro_batches(groups, 10, -1, {}) == (Batches{{0, 1}, {2, 3}, {4, 5}}));
  CHECK(micro_batches(groups, 1, -1, {}) == (Batches{{0}, {1}, {2}, {3}, {4}, {5}}));
  CHECK(micro_batches(groups, 1, -1, {{4, 1}, {0, 0}}) == (Batches{{0}, {1, 4}, {2}, {3}, {5}}));
  // Links join transitively: 5-3, 3-0.
  CHECK(micro_batches(groups, 10, -1, {{5, 3}, {0, 3}}) == (Batches{{0, 3, 5}, {1, 2}, {4}}));
  CHECK(micro_batches({}, 10, -1, {}).empty());
}

TEST("a reward token at the end of a completion has a row, no other last token has") {
  const GroupInput group = group_of({1, kReward, 2}, {{4, 5}, {4, kReward}, {kReward}, {kReward, 4}});
  CHECK(Pack::rows_of(group) == 3 + 1 + 1 + 0 + 1);
  CHECK(Pack::rows_of(group, kReward) == 3 + 1 + 2 + 1 + 1);
  CHECK(Pack::scores_of(group, kReward) == 4);
  CHECK(Pack::scores_of(group, -1) == 0);
  CHECK(Pack::rows_of(group_of({1, kReward}, {}), kReward) == 2);
}

}  // namespace gavel::test
