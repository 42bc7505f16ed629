// How many bytes a frame is on its way.
#pragma once

#include <cstddef>

#include "messages/transport.h"

namespace troupe {

inline std::size_t bytes_of(const Frame& frame) {
  std::size_t bytes = frame.header.size();
  for (const Payload& payload : frame.payloads) bytes += payload.size;
  for (const Payload& payload : frame.device) bytes += payload.size;
  return bytes;
}

}  // namespace troupe
