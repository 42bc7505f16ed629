// A device that somebody may look at: what its ops took, and when its segments ran.
#pragma once

#include <vector>

#include "kernels/device.h"
#include "kernels/profile.h"
#include "kernels/recording.h"

namespace troupe {

class MeasuredDevice : public Device {
 public:
  // What ops took since clear_profile(). REQUIRES: the device was asked to measure.
  virtual OpProfile profile() const = 0;
  virtual void clear_profile() = 0;
  // What each thread did, as far as it was kept. REQUIRES: nothing is pending.
  virtual std::vector<std::vector<RecordedSegment>> recorded() const = 0;
};

}  // namespace troupe
