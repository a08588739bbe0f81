// One step of every row in flight: a forward over those that have drawn a token, then the head and a draw for all. The
// tokens that a step reads are those that the last one drew, where it left them.
#include <algorithm>
#include <bit>
#include <utility>

#include "model/attention_plan.h"
#include "sample/run.h"

namespace gavel::sampling {

// What the host says of a step.
struct Run::StepLists {
  int32_t decoding = 0, drawing = 0;  // rows, padding included
  std::vector<int32_t> sources, positions;
  OwnedPlan plan;
  std::vector<int32_t> head_rows;
  std::vector<float> inverse_temperature;
  std::vector<SampleOptions> options;
};

int32_t Run::padded(int32_t count) const {
  if (context_.device == nullptr || count == 0) return count;
  return static_cast<int32_t>(std::min<int64_t>(std::bit_ceil(static_cast<uint32_t>(count)), capacity_));
}

// Rows that have drawn a token; the others take their group's last prompt row.
void Run::list_decoding(const std::vector<std::shared_ptr<Row>>& rows, StepLists* lists) {
  std::vector<Row*> decoding;
  for (const auto& row : rows) {
    if (row->drawn > 0) decoding.push_back(row.get());
  }
  const auto count = static_cast<int32_t>(decoding.size());
  lists->decoding = padded(count);
  if (count == 0) return;
  const auto size = static_cast<size_t>(lists->decoding);
  std::vector<int32_t> positions;
  for (const Row* row : decoding) {
    lists->sources.push_back(row->place);
    positions.push_back(row->group->next_position + row->drawn - 1);
  }
  lists->sources.resize(size, lists->sources.front());
  positions.resize(size, 0);
  for (int32_t axis = 0; axis < model_.architecture().rope_axes; ++axis)
    lists->positions.insert(lists->positions.end(), positions.begin(), positions.end());

  PlanBuilder builder(count);
  std::vector<DecodeRow> group_rows;
  for (int32_t begin = 0; begin < count;) {
    Group* group = decoding[static_cast<size_t>(begin)]->group;
    group_rows.clear();
    int32_t end = begin;
    for (; end < count && decoding[static_cast<size_t>(end)]->group == group; ++end) {
      Row& row = *decoding[static_cast<size_t>(end)];
      const int32_t keys = group->prompt_length + row.drawn;
      const int32_t needed = (keys + kKeyBlock - 1) / kKeyBlock - group->full_blocks();
      while (static_cast<int32_t>(row.blocks.size()) < needed) {
        row.blocks.push_back(pool_.take());
        --row.reserved;
        --promised_;
      }
      if (row.copy_pending) {
        builder.add_copy(group->blocks.back(), row.blocks.front());
        row.copy_pending = false;
      }
      group_rows.push_back({row.blocks, keys});
    }
    builder.add_decode_rows(begin, std::span(group->blocks).first(static_cast<size_t>(group->full_blocks())),
                            group_rows);
    begin = end;
  }
  lists->plan = std::move(builder).finish();
  if (context_.device != nullptr) lists->plan.pad(lists->decoding);
}

void Run::list_draws(const std::vector<std::shared_ptr<Row>>& rows, StepLists* lists) {
  int32_t decoding = 0;
  for (const auto& row : rows) {
    const SampleRequest& request = requests_[static_cast<size_t>(row->completion.request)];
    const int64_t last_prompt_row = capacity_ + row->group->last_row;
    lists->head_rows.push_back(row->drawn > 0 ? decoding++ : static_cast<int32_t>(last_prompt_row));
    lists->inverse_temperature.push_back(request.temperature > 0 ? 1.0f / request.temperature : 1.0f);
    SampleOptions options;
    options.key = {request.seed, request.id, static_cast<uint32_t>(row->completion.sample),
                   static_cast<uint32_t>(row->drawn)};
    options.greedy = request.temperature <= 0;
    options.top_k = request.top_k;
    options.top_p = request.top_p;
    options.min_p = request.min_p;
    lists->options.push_back(options);
  }
  lists->drawing = padded(static_cast<int32_t>(rows.size()));
  const auto size = static_cast<size_t>(lists->drawing);
  lists->head_rows.resize(size, lists->head_rows.front());
  lists->inverse_temperature.resize(size, lists->inverse_temperature.front());
  lists->options.resize(size, lists->options.front());
}

void Run::draw(const StepLists& lists) {
  const Architecture& architecture = model_.architecture();
  HeadLogprob head;
  head.hidden.data = hidden_.data();
  head.hidden.shape = {2 * capacity_, architecture.hidden_size};
  head.hidden.dtype = model_.weights().dtype();
  head.weight = model_.weights()[architecture.head];
  head.num_targets = lists.drawing;
  head.rows = lists.head_rows.data();
  head.inverse_temperature = lists.inverse_temperature.data();
  head.log_normalizer = draws_.normalizers();
  head.logits = reinterpret_cast<float*>(logits_.data());
  head.tile_sums = head.logits + static_cast<size_t>(lists.drawing) * static_cast<size_t>(architecture.vocabulary);
  ops_of(context_)[Op::head_logprob].forward(context_, &head);

  SampleToken sample;
  sample.num_rows = lists.drawing;
  sample.vocabulary = architecture.vocabulary;
  sample.logits = head.logits;
  sample.log_normalizer = head.log_normalizer;
  sample.tile_sums = head.tile_sums;
  sample.options = lists.options.data();
  sample.banned = settings_.banned_tokens.data();
  sample.num_banned = static_cast<int32_t>(settings_.banned_tokens.size());
  sample.tokens = draws_.tokens();
  sample.logprob = draws_.logprobs();
  sample.log_kept_mass = draws_.log_kept_mass();
  ops_of(context_)[Op::sample_token].forward(context_, &sample);
}

Status Run::enqueue(std::vector<std::shared_ptr<Row>> rows) {
  StepLists lists;
  list_decoding(rows, &lists);
  list_draws(rows, &lists);
  const AttentionPlan plan = lists.plan.view();
  PackView view;
  view.num_tokens = lists.decoding;
  view.tokens = draws_.tokens();
  view.sources = lists.sources.data();
  view.positions = lists.positions.data();
  view.plan = &plan;
  view.kv = pool_.data();
  view.kv_layer_bytes = pool_.layer_bytes();
  const auto body = [&] {
    Tape tape(context_, ops_of(context_), model_.arena(), no_grads_, {});
    if (lists.decoding > 0) {
      const Tensor hidden = model_.architecture().forward(tape, model_.weights(), view);
      if (!tape.status().ok()) return Status(tape.status());
      if (!tape.dry()) memory_.copy(hidden_.data(), hidden.data, static_cast<size_t>(lists.decoding) * row_bytes());
    }
    // A device is told of dry runs too: it measures.
    if (!tape.dry() || context_.device != nullptr) draw(lists);
    return Status::success();
  };
  const auto before = [&](size_t peak) { make_room(peak); };
  GAVEL_RETURN_IF_ERROR(context_.device == nullptr ? plan_and_run(model_.arena(), body, before)
                                                   : plan_and_enqueue(*context_.device, model_.arena(), body, before));
  const int turn = static_cast<int>(stats_.decode_steps++ % 2);
  draws_.send(turn);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i]->place = static_cast<int32_t>(i);
    ++rows[i]->drawn;
  }
  flights_.push_back({std::move(rows), turn});
  return Status::success();
}

// Takes in what the oldest step drew.
Status Run::collect(std::vector<Completion>* finished) {
  const Flight flight = std::move(flights_.front());
  flights_.pop_front();
  const Draws::Results drawn = draws_.receive(flight.turn);
  if (memory_.on_device() && !memory_.device().ok()) return memory_.finish();
  for (size_t i = 0; i < flight.rows.size(); ++i) {
    Row& row = *flight.rows[i];
    if (row.finished) continue;
    Completion& completion = row.completion;
    if (drawn.tokens[i] < 0) {
      return Status::error(Code::non_finite, "Expected finite logits but request " +
                                                 std::to_string(completion.request) + " has none at token " +
                                                 std::to_string(completion.tokens.size()) +
                                                 ". The weights are damaged: go back to an earlier checkpoint.");
    }
    completion.tokens.push_back(drawn.tokens[i]);
    completion.logprobs.push_back(drawn.logprobs[i]);
    completion.log_kept_mass.push_back(drawn.log_kept_mass[i]);
    const bool stopped = stops(row);
    if (!stopped && static_cast<int32_t>(completion.tokens.size()) < row.group->most_tokens) continue;
    row.finished = true;
    completion.stopped = stopped;
  }
  retire(finished);
  return Status::success();
}

// Whether the row's last token is one to stop at, or completes a string to stop at.
bool Run::stops(Row& row) const {
  const SampleRequest& request = requests_[static_cast<size_t>(row.completion.request)];
  const int32_t token = row.completion.tokens.back();
  if (std::find(request.stop_tokens.begin(), request.stop_tokens.end(), token) != request.stop_tokens.end())
    return true;
  if (request.stop_strings.empty()) return false;
  row.tail += settings_.token_bytes.of(token);
  size_t longest = 0;
  for (const std::string& text : request.stop_strings) {
    if (row.tail.find(text) != std::string::npos) return true;
    longest = std::max(longest, text.size());
  }
  if (row.tail.size() >= longest) row.tail.erase(0, row.tail.size() - longest + 1);
  return false;
}

// Pages may go to others at once: whatever still reads them was enqueued before whatever will write them.
void Run::retire(std::vector<Completion>* finished) {
  std::erase_if(rows_, [&](const std::shared_ptr<Row>& row) {
    if (!row->finished) return false;
    stats_.completion_tokens += static_cast<int64_t>(row->completion.tokens.size());
    ++stats_.completions;
    ++row->group->finished;
    promised_ -= row->reserved;
    pool_.give(&row->blocks);
    finished->push_back(std::move(row->completion));
    return true;
  });
  std::erase_if(groups_, [&](const std::unique_ptr<Group>& group) {
    if (group->finished < requests_[static_cast<size_t>(group->request)].count) return false;
    pool_.give(&group->blocks);
    free_last_rows_.push_back(group->last_row);
    return true;
  });
}

Status Run::step(std::vector<Completion>* finished) {
  const PassCounts before = passes();
  GAVEL_RETURN_IF_ERROR(prefill());
  admit();
  const auto start = std::chrono::steady_clock::now();
  const bool tail = rows_.size() < kTailRows;
  std::vector<std::shared_ptr<Row>> rows;
  for (const auto& row : rows_) {
    if (row->drawn < row->group->most_tokens) rows.push_back(row);
  }
  if (rows.empty() && flights_.empty()) return Status::error(Code::internal, "Expected pages for at least one row.");
  // With nothing to enqueue there is nothing to wait behind.
  const size_t late = rows.empty() ? 0 : lag_;
  if (!rows.empty()) GAVEL_RETURN_IF_ERROR(enqueue(std::move(rows)));
  while (flights_.size() > late) GAVEL_RETURN_IF_ERROR(collect(finished));
  stats_.buffer_bytes = hidden_.size_bytes() + logits_.size_bytes();
  stats_.activation_bytes = model_.arena().capacity();
  stats_.replayed_steps += passes().replayed - before.replayed;
  stats_.captured_graphs += passes().captured - before.captured;
  stats_.device_waits += passes().waits - before.waits;
  const double seconds = seconds_since(start);
  stats_.decode_seconds += seconds;
  if (tail) stats_.tail_seconds += seconds;
  return Status::success();
}

}  // namespace gavel::sampling
