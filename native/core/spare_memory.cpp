#include "core/spare_memory.h"

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

namespace gavel {
namespace {

struct Offers {
  std::mutex mutex;
  std::vector<std::pair<std::thread::id, SpareMemory*>> list;
};

// Never destroyed: a model may outlive every static of the library.
Offers& offers() {
  static Offers* const made = new Offers;
  return *made;
}

}  // namespace

SpareMemory::~SpareMemory() { withdraw(); }

void SpareMemory::offer() {
  if (std::exchange(offered_, true)) return;
  std::lock_guard lock(offers().mutex);
  offers().list.emplace_back(std::this_thread::get_id(), this);
}

void SpareMemory::withdraw() {
  if (!std::exchange(offered_, false)) return;
  std::lock_guard lock(offers().mutex);
  std::erase_if(offers().list, [this](const auto& one) { return one.second == this; });
}

bool give_back_spare_memory() {
  std::vector<SpareMemory*> own;
  {
    std::lock_guard lock(offers().mutex);
    for (const auto& [thread, memory] : offers().list) {
      if (thread == std::this_thread::get_id()) own.push_back(memory);
    }
  }
  // Outside the lock: giving back withdraws the offer.
  for (SpareMemory* memory : own) memory->give_back();
  return !own.empty();
}

}  // namespace gavel
