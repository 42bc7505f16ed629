// The machines that a run is planned for: so many devices of one kind, filled machine by machine.
#pragma once

#include <string>

#include "actors/config.h"

namespace troupe {

struct Cluster {
  HardwareConfig hardware;
  int devices = 1;

  int machines() const;
  int beside() const;  // devices of a full machine, at most all
  // Seconds for so many bytes that a device sends to others chosen evenly, itself among them.
  double spread_seconds(double bytes) const;
  // Of a message to the next device, in another machine if there is one.
  double message_seconds(double bytes) const;
};

// What the hardware file does not tell though a forecast needs it, beginning with the key; "" when all is there.
std::string why_untold(const Cluster& cluster);

}  // namespace troupe
