#include "train/micro_batches.h"

#include "model/pack.h"
#include "test/check.h"

namespace gavel::test {
namespace {

using Units = std::vector<std::vector<int32_t>>;

// Groups of `rows` packed rows each (the last completion token predicts nothing): one prompt token, one completion.
std::vector<GroupInput> groups_of(const std::vector<size_t>& tokens) {
  std::vector<GroupInput> groups;
  for (size_t count : tokens) {
    GroupInput group;
    group.prompt_tokens = {1};
    group.completions.resize(1);
    group.completions[0].tokens.assign(count, 2);
    groups.push_back(group);
  }
  return groups;
}

std::vector<std::vector<std::ptrdiff_t>> cut(const std::vector<GroupInput>& groups, const std::vector<GroupJoin>& joins,
                                             int64_t budget) {
  std::vector<std::vector<std::ptrdiff_t>> result;
  for (const auto& batch : micro_batches(groups, joins, budget, -1)) {
    result.emplace_back();
    for (const GroupInput* group : batch) result.back().push_back(group - groups.data());
  }
  return result;
}

}  // namespace

TEST("micro_batch_units joins groups over pairs and keeps the order of the call") {
  CHECK(micro_batch_units(3, {}) == Units({{0}, {1}, {2}}));
  CHECK(micro_batch_units(3, {{1, 1}}) == Units({{0}, {1}, {2}}));
  CHECK(micro_batch_units(6, {{0, 3}, {4, 1}, {5, 2}}) == Units({{0, 3}, {1, 4}, {2, 5}}));
  // A chain, given from its end, is one unit.
  CHECK(micro_batch_units(6, {{5, 4}, {4, 2}, {2, 0}}) == Units({{0, 2, 4, 5}, {1}, {3}}));
  CHECK(micro_batch_units(0, {}).empty());
}

TEST("micro_batches never part a pair and fill the budget otherwise") {
  const std::vector<GroupInput> groups = groups_of({4, 4, 4, 4});
  const int64_t one = 4;
  CHECK_EQ(cut(groups, {}, 1).size(), size_t{4});
  CHECK((cut(groups, {}, 2 * one) == std::vector<std::vector<std::ptrdiff_t>>{{0, 1}, {2, 3}}));
  CHECK((cut(groups, {{0, 2}, {3, 1}}, 1) == std::vector<std::vector<std::ptrdiff_t>>{{0, 2}, {1, 3}}));
  CHECK((cut(groups, {{0, 3}}, 3 * one) == std::vector<std::vector<std::ptrdiff_t>>{{0, 3, 1}, {2}}));
  CHECK((cut(groups, {{0, 3}}, 100) == std::vector<std::vector<std::ptrdiff_t>>{{0, 3, 1, 2}}));
}

TEST("place_tokens brings values of a batch back to the order of the call") {
  const std::vector<GroupInput> groups = groups_of({1, 2, 3});
  const std::vector<size_t> first = first_completion_tokens(groups);
  CHECK(first == std::vector<size_t>({0, 1, 3, 6}));
  std::vector<float> call(6);
  place_tokens(groups, first, {&groups[0], &groups[2]}, {1, 4, 5, 6}, &call);
  place_tokens(groups, first, {&groups[1]}, {2, 3}, &call);
  CHECK(call == std::vector<float>({1, 2, 3, 4, 5, 6}));
}

TEST("a reward token at the end of a completion has a row, no other last token has") {
  constexpr int32_t kReward = 9;
  GroupInput group;
  group.prompt_tokens = {1, kReward, 2};
  for (const std::vector<int32_t>& tokens :
       std::vector<std::vector<int32_t>>{{4, 5}, {4, kReward}, {kReward}, {kReward, 4}}) {
    group.completions.emplace_back();
    group.completions.back().tokens = tokens;
  }
  CHECK(Pack::rows_of(group) == 3 + 1 + 1 + 0 + 1);
  CHECK(Pack::rows_of(group, kReward) == 3 + 1 + 2 + 1 + 1);
  CHECK(Pack::scores_of(group, kReward) == 4);
  CHECK(Pack::scores_of(group, -1) == 0);
  group.completions.clear();
  CHECK(Pack::rows_of(group, kReward) == 3);
}

}  // namespace gavel::test
