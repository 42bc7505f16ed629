// A device that somebody may look at: what its ops took.
#pragma once

#include "kernels/device.h"
#include "kernels/profile.h"

namespace troupe {

class MeasuredDevice : public Device {
 public:
  // What ops took since clear_profile(). REQUIRES: the device was asked to measure.
  virtual OpProfile profile() const = 0;
  virtual void clear_profile() = 0;
};

}  // namespace troupe
