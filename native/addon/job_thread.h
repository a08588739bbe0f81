// One thread and a first-in-first-out queue of jobs: every long call of one engine runs here, so models, arenas and
// scratch memory need no locks. Knows nothing of Node. `on_settled` is called once per job, on the job thread or, for a
// job aborted while it waits, on the thread that aborted it; never under a lock.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "core/status.h"

namespace gavel {

struct Job {
  uint64_t ticket = 0;          // unique, names the job to whoever waits for it
  uint64_t number = 0;          // the caller's name for abort; 0: none
  const void* owner = nullptr;  // the model it works on, or null
  std::atomic<bool> aborted{false};
  std::function<Status(const Job&)> work;
};

class JobThread {
 public:
  using OnSettled = std::function<void(uint64_t ticket, Status status)>;

  explicit JobThread(OnSettled on_settled);
  ~JobThread();
  JobThread(const JobThread&) = delete;
  JobThread& operator=(const JobThread&) = delete;

  void push(std::unique_ptr<Job> job);

  // Raise the flag of what runs, and settle what waits as 'aborted' at once.
  void abort_number(uint64_t number);
  void abort_ticket(uint64_t ticket);
  void abort_owner(const void* owner);
  void abort_all();

  // Aborts everything and waits for the thread to end, at most one micro-step of the running job. Idempotent; not on
  // the job thread itself.
  void stop();

  // Aborts everything and waits at most `timeout_ms` for the running job to notice: for the end of the process.
  void quiesce(int timeout_ms);

 private:
  void loop();
  template <class Matches>
  void abort_where(Matches matches);

  OnSettled on_settled_;
  std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::deque<std::unique_ptr<Job>> queue_;
  std::unique_ptr<Job> running_;
  bool stopping_ = false;
  std::thread thread_;
};

// True from the moment the process began to exit: nothing may be sent to an event loop any more.
bool process_is_exiting();

}  // namespace gavel
