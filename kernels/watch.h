// Watch: sees what a device's threads run, as they begin and end it. Those threads call it, so it is quick, and safe
// under several of them at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/device.h"

namespace troupe {

class Watch {
 public:
  virtual ~Watch() = default;
  // `segments` run together on a thread of the device (kernels/strand.h); one, as a rule. Times are of the device's clock.
  virtual void begins(std::size_t thread, const std::vector<Segment>& segments, std::int64_t now_us) = 0;
  virtual void ends(std::size_t thread, const std::vector<Segment>& segments, std::int64_t begin_us,
                    std::int64_t now_us) = 0;
};

}  // namespace troupe
