// Memory that its owner can do without. check_memory() asks for it when there is too little: what the calling thread
// holds is given back before anything is refused.
#pragma once
#include <thread>

namespace gavel {

class SpareMemory {
 public:
  SpareMemory() = default;
  virtual ~SpareMemory();
  SpareMemory(const SpareMemory&) = delete;
  SpareMemory& operator=(const SpareMemory&) = delete;

  // Frees all of it; on the thread that called offer().
  virtual void give_back() = 0;

 protected:
  // From now on this thread's check_memory() may call give_back(). Cheap to repeat.
  void offer();
  void withdraw();

 private:
  bool offered_ = false;
};

// Asks everything that the calling thread offered; false when there was nothing.
bool give_back_spare_memory();

}  // namespace gavel
