// The one way between JavaScript and an engine's job thread: run() queues work and returns a promise that settles once.
// The job thread posts letters (finished completions, settlements) into a locked queue and wakes the event loop at most
// once per drain; JavaScript drains the whole queue in order, so a promise settles after all its events were delivered.
// Everything that holds a JavaScript handle lives in `runs_` and is touched on the JavaScript thread only.
#pragma once
#include <napi.h>

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "addon/job_thread.h"
#include "core/context.h"
#include "core/device.h"
#include "sample/sampler.h"

namespace gavel {

struct RunOptions {
  uint64_t number = 0;          // the caller's name of the job; 0: none
  const void* owner = nullptr;  // the model, so that disposing it aborts its jobs
  Napi::Function on_completions = {};
};

class Bridge : public std::enable_shared_from_this<Bridge> {
 public:
  // `device` null: models live in the process's memory.
  static std::shared_ptr<Bridge> create(Napi::Env env, int threads, CpuPath path, std::vector<int> cores,
                                        std::unique_ptr<Device> device);
  ~Bridge();

  // Work: Status(const Job&, Result*) on the job thread. Convert: Napi::Value(Napi::Env, Result&) back on the
  // JavaScript thread. `self` is the wrapper called; it stays alive until the promise settles.
  template <class Result, class Work, class Convert>
  Napi::Promise run(Napi::Env env, Napi::Object self, const RunOptions& options, Work work, Convert convert) {
    auto result = std::make_shared<Result>();
    return start(
        env, self, options,
        [result, work = std::move(work)](const Job& job) mutable -> Status { return work(job, result.get()); },
        [result, convert](Napi::Env e) -> Napi::Value { return convert(e, *result); });
  }

  // Queues work nobody waits for; a failure is reported by the next run.
  void run_unwatched(std::function<Status(const Job&)> work);
  // From the job thread.
  void post_completions(uint64_t ticket, std::vector<Completion> completions);

  void abort(uint64_t number) { thread_.abort_number(number); }
  void abort_owner(const void* owner) { thread_.abort_owner(owner); }
  // Aborts everything, runs `release` on the job thread, ends it. Every call resolves when that is done.
  Napi::Promise dispose(Napi::Env env, Napi::Object self, std::function<void()> release);
  bool disposed() const { return disposing_; }
  // Without a promise: the wrapper was collected, or the environment ends. Waits for the job thread.
  void abandon(Napi::Env env);

  Context& context() { return context_; }
  int threads() const { return pool_.threads(); }
  const char* isa() const { return device_ ? "cuda" : path_name({context_.isa, context_.amx}); }
  size_t scratch_bytes() const { return scratch_bytes_.load(); }

 private:
  struct Letter {
    uint64_t ticket = 0;
    bool settles = false;
    std::vector<Completion> completions;
    Status status;
  };
  struct Run {
    explicit Run(Napi::Env env) : deferred(env) {}
    Napi::Promise::Deferred deferred;
    Napi::ObjectReference self, site;
    Napi::FunctionReference on_completions;
    Napi::Error thrown;  // by on_completions
    bool has_thrown = false;
    bool disposes = false;  // the engine: settles disposals_ whatever came of it
    std::function<Napi::Value(Napi::Env)> convert;
  };
  static void wake(Napi::Env env, Napi::Function, Bridge* bridge, void*);
  using Wakeup = Napi::TypedThreadSafeFunction<Bridge, void, &Bridge::wake>;

  Bridge(int threads, CpuPath path, std::vector<int> cores, std::unique_ptr<Device> device);
  Napi::Promise start(Napi::Env env, Napi::Object self, const RunOptions& options,
                      std::function<Status(const Job&)> work, std::function<Napi::Value(Napi::Env)> convert);
  void queue(Napi::Env env, Run run, const RunOptions& options, std::function<Status(const Job&)> work);
  void post(Letter letter);
  void drain(Napi::Env env);
  void deliver(Napi::Env env, Letter& letter);
  void call_back(Napi::Env env, uint64_t ticket, Run& run, std::vector<Completion>& completions);
  void settle(Napi::Env env, Run& run, const Status& status);
  void finish_dispose(Napi::Env env);

  void count_scratch();

  const std::unique_ptr<Device> device_;  // outlives the models, whose wrappers hold this bridge
  ThreadPool pool_;
  std::unique_ptr<EngineThreads> live_;  // until the engine ends
  std::unique_ptr<Scratch> scratch_;     // freed when the engine ends, not when its wrapper is collected
  Context context_;
  std::atomic<size_t> scratch_bytes_{0};

  std::mutex mutex_;
  std::deque<Letter> letters_;
  bool awake_ = false;
  Status unreported_;  // of unwatched work
  Wakeup wakeup_;

  // JavaScript thread only.
  std::unordered_map<uint64_t, Run> runs_;
  std::vector<Napi::Promise::Deferred> disposals_;
  uint64_t next_ticket_ = 1;
  bool disposing_ = false, ended_ = false;

  JobThread thread_;  // last: its thread uses all of the above
};

}  // namespace gavel
