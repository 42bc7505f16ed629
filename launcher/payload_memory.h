// Where a node's payloads lie when its device has a say: in the device's memory of this place.
#pragma once

#include <cstddef>
#include <memory>

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

}  // namespace troupe
