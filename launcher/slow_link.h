// A slow link: a transport whose frames leave late, as if the way to each peer took a set time and carried a set number
// of bytes a second. For measuring what a slow network would cost, between real processes on one machine.
// The law: a frame is handed to the transport below no sooner than it would have arrived, whole, over such a link; frames
// to one peer leave in the order in which they were sent. What the real way takes comes on top.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "messages/transport.h"

namespace troupe {

struct SlowLinkOptions {
  std::int64_t delay_ns = 0;                  // one way
  double bytes_per_ns = 0;                    // of each direction between two nodes; 0: no limit
  std::function<std::int64_t()> now_ns = {};  // empty: the machine's monotonic clock
};

// Throws Error where no timer is to be had. What has yet to leave when it ends, leaves at once.
std::unique_ptr<Transport> make_slow_link(std::unique_ptr<Transport> below, SlowLinkOptions options);

}  // namespace troupe
