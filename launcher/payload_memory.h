// Where a node's payloads lie when its device has a say: in the device's memory of this place.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "kernels/device.h"
#include "messages/payload.h"

namespace troupe {

// REQUIRES: the device outlives whoever takes payloads; the payloads may outlive the device.
inline PayloadPool::Source memory_of(Device& device, Place place) {
  return [&device, place](std::size_t size) {
    const Memory memory = device.allocate(size, place);
    return std::shared_ptr<std::byte>(memory.owner, static_cast<std::byte*>(memory.data));
  };
}

// What is given back waits here until somebody says that it may go: to free a GPU's memory, or pinned memory, waits for
// all that runs there, and a copy to another process may wait for this one.
class Parking {
 public:
  static PayloadPool::Source parked(PayloadPool::Source source, const std::shared_ptr<Parking>& parking) {
    return [source = std::move(source), parking](std::size_t size) -> std::shared_ptr<std::byte> {
      std::shared_ptr<std::byte> memory = source(size);
      std::byte* const data = memory.get();
      return {data, [parking, memory = std::move(memory)](std::byte*) mutable { parking->take(std::move(memory)); }};
    };
  }
  void clear() {
    std::vector<std::shared_ptr<std::byte>> going;
    const std::lock_guard lock(mutex_);
    going.swap(memory_);
  }

 private:
  void take(std::shared_ptr<std::byte> memory) {
    const std::lock_guard lock(mutex_);
    memory_.push_back(std::move(memory));
  }
  std::mutex mutex_;
  std::vector<std::shared_ptr<std::byte>> memory_;
};

}  // namespace troupe
