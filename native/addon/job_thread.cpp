#include "addon/job_thread.h"

#include <chrono>
#include <cstdlib>
#include <exception>
#include <new>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/threads.h"

namespace gavel {
namespace {

// process.exit() runs static destructors while job threads still compute; the exit handler stops them first. Leaked on
// purpose, so that it outlives every static destructor.
struct Registry {
  std::mutex mutex;
  std::unordered_set<JobThread*> threads;
  std::atomic<bool> exiting{false};
};

constexpr int kExitWaitMs = 2000;

Registry& registry() {
  static Registry& instance = *[] {
    auto* made = new Registry;
    std::atexit([] {
      Registry& all = registry();
      all.exiting.store(true);
      std::lock_guard lock(all.mutex);
      for (JobThread* thread : all.threads) thread->quiesce(kExitWaitMs);
    });
    return made;
  }();
  return instance;
}

Status aborted_status() { return Status::error(Code::aborted, "The call was aborted before it finished."); }

Status run_guarded(const Job& job) {
  try {
    return job.work(job);
  } catch (const std::bad_alloc&) {
    return Status::error(Code::out_of_memory,
                         "Expected more free memory for this call but the system refused an allocation. Use smaller "
                         "batches (`maxTokensPerMicroBatch`, `maxRows`) or a smaller model.");
  } catch (const std::exception& error) {
    return Status::error(Code::internal, std::string("An unexpected native failure ended this call: ") + error.what());
  } catch (...) {
    return Status::error(Code::internal, "An unexpected native failure of unknown type ended this call.");
  }
}

}  // namespace

bool process_is_exiting() { return registry().exiting.load(); }

JobThread::JobThread(OnSettled on_settled) : on_settled_(std::move(on_settled)) {
  thread_ = std::thread([this] { loop(); });
  Registry& all = registry();
  std::lock_guard lock(all.mutex);
  all.threads.insert(this);
}

JobThread::~JobThread() { stop(); }

void JobThread::push(std::unique_ptr<Job> job) {
  {
    std::lock_guard lock(mutex_);
    if (!stopping_) {
      queue_.push_back(std::move(job));
      wake_.notify_one();
      return;
    }
  }
  on_settled_(job->ticket, aborted_status());
}

template <class Matches>
void JobThread::abort_where(Matches matches) {
  std::vector<std::unique_ptr<Job>> waiting;
  {
    std::lock_guard lock(mutex_);
    if (running_ && matches(*running_)) running_->aborted.store(true);
    std::deque<std::unique_ptr<Job>> kept;
    for (auto& job : queue_) {
      if (matches(*job)) {
        waiting.push_back(std::move(job));
      } else {
        kept.push_back(std::move(job));
      }
    }
    queue_ = std::move(kept);
  }
  for (const auto& job : waiting) on_settled_(job->ticket, aborted_status());
}

void JobThread::abort_number(uint64_t number) {
  abort_where([number](const Job& job) { return number != 0 && job.number == number; });
}

void JobThread::abort_ticket(uint64_t ticket) {
  abort_where([ticket](const Job& job) { return job.ticket == ticket; });
}

void JobThread::abort_owner(const void* owner) {
  abort_where([owner](const Job& job) { return job.owner == owner; });
}

void JobThread::abort_all() {
  abort_where([](const Job&) { return true; });
}

void JobThread::stop() {
  {
    Registry& all = registry();
    std::lock_guard lock(all.mutex);
    all.threads.erase(this);
  }
  abort_all();
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    wake_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

void JobThread::quiesce(int timeout_ms) {
  abort_all();
  std::unique_lock lock(mutex_);
  stopping_ = true;
  wake_.notify_one();
  idle_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [this] { return running_ == nullptr; });
}

void JobThread::loop() {
  yield_to_main_thread();
  FlushDenormals flush;
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    running_ = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    Status status = run_guarded(*running_);
    // The closure's memory (inputs, often large) goes here, not on the thread that waits for the result.
    running_->work = nullptr;
    on_settled_(running_->ticket, std::move(status));
    lock.lock();
    running_.reset();
    idle_.notify_all();
  }
}

}  // namespace gavel
