#include "addon/bridge.h"

#include <iterator>

#include "addon/environment.h"
#include "addon/outputs.h"

namespace gavel {
namespace {

// Runs before the wake-up's own clean-up, which was registered earlier, so the job thread never sees it closed.
void on_environment_end(void* data) { static_cast<Bridge*>(data)->abandon(nullptr); }

}  // namespace

Bridge::Bridge(int threads, CpuPath path, std::vector<int> cores, std::unique_ptr<Device> device)
    : device_(std::move(device)),
      pool_(threads),
      live_(std::make_unique<EngineThreads>(threads)),
      scratch_(std::make_unique<Scratch>()),
      context_{&pool_, scratch_.get(), path.isa, path.amx, false, device_.get()},
      thread_([this](uint64_t ticket, Status status) {
        Letter letter;
        letter.ticket = ticket;
        letter.settles = true;
        letter.status = std::move(status);
        post(std::move(letter));
      }) {
  if (!cores.empty()) pool_.pin(std::move(cores));
}

Bridge::~Bridge() { thread_.stop(); }

std::shared_ptr<Bridge> Bridge::create(Napi::Env env, int threads, CpuPath path, std::vector<int> cores,
                                       std::unique_ptr<Device> device) {
  std::shared_ptr<Bridge> bridge(new Bridge(threads, path, std::move(cores), std::move(device)));
  // The wake-up owns a share, so a late one never meets freed memory.
  auto* share = new std::shared_ptr<Bridge>(bridge);
  bridge->wakeup_ = Wakeup::New(
      env, "gavel engine", 0, 1, bridge.get(), [](Napi::Env, std::shared_ptr<Bridge>* owned, Bridge*) { delete owned; },
      share);
  bridge->wakeup_.Unref(env);
  napi_add_env_cleanup_hook(env, on_environment_end, bridge.get());
  return bridge;
}

Napi::Promise Bridge::start(Napi::Env env, Napi::Object self, const RunOptions& options,
                            std::function<Status(const Job&)> work, std::function<Napi::Value(Napi::Env)> convert) {
  if (disposing_) {
    throw_status(env, Status::error(Code::disposed,
                                    "Expected a live engine but this one was disposed. Create another with "
                                    "createEngine()."));
  }
  Run run(env);
  run.self = Napi::Persistent(self);
  run.site = Napi::Persistent(Napi::Error::New(env, "").Value());
  if (!options.on_completions.IsEmpty()) run.on_completions = Napi::Persistent(options.on_completions);
  run.convert = std::move(convert);
  const Napi::Promise promise = run.deferred.Promise();
  queue(env, std::move(run), options, std::move(work));
  return promise;
}

void Bridge::queue(Napi::Env env, Run run, const RunOptions& options, std::function<Status(const Job&)> work) {
  const uint64_t ticket = next_ticket_++;
  // Pending work keeps the event loop alive; an idle engine does not.
  if (runs_.empty()) wakeup_.Ref(env);
  runs_.emplace(ticket, std::move(run));
  auto job = std::make_unique<Job>();
  job->ticket = ticket;
  job->number = options.number;
  job->owner = options.owner;
  job->work = [this, work = std::move(work)](const Job& self) {
    Status status = work(self);
    // What a device did not do is this job's failure, not the next one's.
    Status arrived = device_ ? device_->finish() : Status::success();
    count_scratch();
    return status.ok() ? arrived : status;
  };
  thread_.push(std::move(job));
}

void Bridge::count_scratch() {
  scratch_bytes_.store(scratch_->size_bytes() + (device_ ? static_cast<size_t>(device_->buffer_bytes()) : 0));
}

void Bridge::run_unwatched(std::function<Status(const Job&)> work) {
  auto job = std::make_unique<Job>();
  job->work = [this, work = std::move(work)](const Job& self) {
    Status status = work(self);
    if (device_ && status.ok()) status = device_->finish();
    if (!status.ok()) {
      std::lock_guard lock(mutex_);
      unreported_ = status;
    }
    return status;
  };
  thread_.push(std::move(job));
}

void Bridge::post_completions(uint64_t ticket, std::vector<Completion> completions) {
  Letter letter;
  letter.ticket = ticket;
  letter.completions = std::move(completions);
  post(std::move(letter));
}

void Bridge::post(Letter letter) {
  if (letter.ticket == 0) return;
  {
    std::lock_guard lock(mutex_);
    Letter* last = letters_.empty() ? nullptr : &letters_.back();
    if (last != nullptr && last->ticket == letter.ticket && !last->settles && !letter.settles) {
      last->completions.insert(last->completions.end(), std::make_move_iterator(letter.completions.begin()),
                               std::make_move_iterator(letter.completions.end()));
    } else {
      letters_.push_back(std::move(letter));
    }
    if (awake_) return;
    awake_ = true;
  }
  if (!process_is_exiting()) wakeup_.NonBlockingCall();
}

void Bridge::wake(Napi::Env env, Napi::Function, Bridge* bridge, void*) {
  if (static_cast<napi_env>(env) == nullptr) return;
  // Nothing may escape into the event loop's own frames: there it would abort the process.
  try {
    bridge->drain(env);
  } catch (...) {
    bool pending = false;
    napi_value ignored;
    if (napi_is_exception_pending(env, &pending) == napi_ok && pending)
      napi_get_and_clear_last_exception(env, &ignored);
  }
}

void Bridge::drain(Napi::Env env) {
  const std::shared_ptr<Bridge> alive = shared_from_this();
  std::deque<Letter> letters;
  {
    std::lock_guard lock(mutex_);
    letters.swap(letters_);
    awake_ = false;
  }
  for (Letter& letter : letters) {
    Napi::HandleScope scope(env);
    deliver(env, letter);
  }
}

void Bridge::deliver(Napi::Env env, Letter& letter) {
  const auto found = runs_.find(letter.ticket);
  if (found == runs_.end()) return;
  if (!letter.settles) {
    call_back(env, letter.ticket, found->second, letter.completions);
    return;
  }
  Run run = std::move(found->second);
  runs_.erase(found);
  if (runs_.empty()) wakeup_.Unref(env);
  settle(env, run, letter.status);
}

void Bridge::call_back(Napi::Env env, uint64_t ticket, Run& run, std::vector<Completion>& completions) {
  if (run.has_thrown || run.on_completions.IsEmpty()) return;
  try {
    run.on_completions.Value().Call({completions_to_js(env, completions)});
  } catch (Napi::Error& error) {
    run.thrown = std::move(error);
    run.has_thrown = true;
    thread_.abort_ticket(ticket);
  }
}

void Bridge::settle(Napi::Env env, Run& run, const Status& status) {
  if (run.disposes) {
    finish_dispose(env);
    return;
  }
  if (run.has_thrown) {
    run.deferred.Reject(run.thrown.Value());
    return;
  }
  Status outcome = status;
  if (outcome.ok()) {
    std::lock_guard lock(mutex_);
    std::swap(outcome, unreported_);
  }
  if (!outcome.ok()) {
    run.deferred.Reject(make_error(env, outcome, run.site.Value()));
    return;
  }
  try {
    run.deferred.Resolve(run.convert(env));
  } catch (const Napi::Error& error) {
    run.deferred.Reject(error.Value());
  }
}

Napi::Promise Bridge::dispose(Napi::Env env, Napi::Object self, std::function<void()> release) {
  Napi::Promise::Deferred deferred(env);
  if (ended_) {
    deferred.Resolve(env.Undefined());
    return deferred.Promise();
  }
  disposals_.push_back(deferred);
  if (!disposing_) {
    disposing_ = true;
    thread_.abort_all();
    Run run(env);
    run.self = Napi::Persistent(self);
    run.disposes = true;
    queue(env, std::move(run), {}, [release = std::move(release)](const Job&) -> Status {
      release();
      return Status::success();
    });
  }
  return deferred.Promise();
}

void Bridge::finish_dispose(Napi::Env env) {
  std::vector<Napi::Promise::Deferred> waiting;
  waiting.swap(disposals_);
  abandon(env);
  for (const auto& deferred : waiting) deferred.Resolve(env.Undefined());
}

void Bridge::abandon(Napi::Env env) {
  if (ended_) return;
  ended_ = disposing_ = true;
  thread_.stop();
  context_.scratch = nullptr;
  scratch_.reset();
  if (device_) device_->release_buffers();
  live_.reset();
  runs_.clear();
  disposals_.clear();
  if (static_cast<napi_env>(env) == nullptr) return;  // the environment closes its own wake-ups
  napi_remove_env_cleanup_hook(env, on_environment_end, this);
  wakeup_.Release();
}

}  // namespace gavel
