// Memory that its owner can do without. Whoever checks memory asks for it when there is too little: what the calling
// thread holds in the same place is given back before anything is refused.
#pragma once
#include <thread>

namespace gavel {

class Device;

class SpareMemory {
 public:
  SpareMemory() = default;
  virtual ~SpareMemory();
  SpareMemory(const SpareMemory&) = delete;
  SpareMemory& operator=(const SpareMemory&) = delete;

  // Frees all of it; on the thread that called offer().
  virtual void give_back() = 0;

 protected:
  // From now on this thread's checks may call give_back(). Of a device's memory, or of the process's. Cheap to repeat.
  void offer(const Device* device = nullptr);
  void withdraw();

 private:
  bool offered_ = false;
};

// Asks everything that the calling thread offered there; false when there was nothing.
bool give_back_spare_memory(const Device* device = nullptr);

}  // namespace gavel
