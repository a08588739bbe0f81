#include "core/spare_memory.h"

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

namespace gavel {
namespace {

struct Offer {
  std::thread::id thread;
  const Device* device;
  SpareMemory* memory;
};
struct Offers {
  std::mutex mutex;
  std::vector<Offer> list;
};

// Never destroyed: a model may outlive every static of the library.
Offers& offers() {
  static Offers* const made = new Offers;
  return *made;
}

}  // namespace

SpareMemory::~SpareMemory() { withdraw(); }

void SpareMemory::offer(const Device* device) {
  if (std::exchange(offered_, true)) return;
  std::lock_guard lock(offers().mutex);
  offers().list.push_back({std::this_thread::get_id(), device, this});
}

void SpareMemory::withdraw() {
  if (!std::exchange(offered_, false)) return;
  std::lock_guard lock(offers().mutex);
  std::erase_if(offers().list, [this](const Offer& one) { return one.memory == this; });
}

bool give_back_spare_memory(const Device* device) {
  std::vector<SpareMemory*> own;
  {
    std::lock_guard lock(offers().mutex);
    for (const Offer& one : offers().list) {
      if (one.thread == std::this_thread::get_id() && one.device == device) own.push_back(one.memory);
    }
  }
  // Outside the lock: giving back withdraws the offer.
  for (SpareMemory* memory : own) memory->give_back();
  return !own.empty();
}

}  // namespace gavel
