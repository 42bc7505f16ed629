#include "launcher/forecast/cluster.h"

#include <fmt/format.h>

#include <algorithm>

namespace troupe {

int Cluster::machines() const { return (devices + hardware.devices_per_machine - 1) / hardware.devices_per_machine; }

int Cluster::beside() const { return std::min(devices, hardware.devices_per_machine); }

double Cluster::spread_seconds(double bytes) const {
  const double all = devices, near = beside();
  double seconds = 0;
  if (near > 1) seconds += bytes * (near - 1) / all / (hardware.inside_gbytes_per_second * 1e9);
  if (all > near) seconds += bytes * (all - near) / all / (hardware.between_gbytes_per_second * 1e9);
  return seconds;
}

double Cluster::message_seconds(double bytes) const {
  if (devices == 1) return 0;
  const bool far = devices > beside();
  const double rate = far ? hardware.between_gbytes_per_second : hardware.inside_gbytes_per_second;
  return (far ? hardware.between_latency_us : hardware.inside_latency_us) * 1e-6 + bytes / (rate * 1e9);
}

std::string why_untold(const Cluster& cluster) {
  const HardwareConfig& h = cluster.hardware;
  const auto untold = [&](const char* key, const char* what) {
    return fmt::format("{} is not told, and a forecast needs {}: write it into the hardware file", key, what);
  };
  if (h.memory_gbytes == 0) return untold("memory_gbytes", "the memory of a device");
  if (cluster.beside() > 1 && h.inside_gbytes_per_second == 0)
    return untold("inside_gbytes_per_second", "the rate of the link within a machine");
  if (cluster.machines() > 1 && h.between_gbytes_per_second == 0)
    return untold("between_gbytes_per_second", "the rate of the network between machines");
  return "";
}

}  // namespace troupe
