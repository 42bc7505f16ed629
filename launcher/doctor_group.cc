// A line of /proc/self/cgroup is "0::/a/b" (version 2) or "4:memory:/a/b" (version 1, a tree for each controller). In a
// container the path may not exist below the mount: what can't be read limits nothing, and the root is asked last.
#include "launcher/doctor_group.h"

#include <algorithm>
#include <sstream>

namespace troupe {

namespace {

using Read = std::function<std::string(const std::string&)>;

constexpr std::uint64_t kNoLimit = std::uint64_t{1} << 60;  // version 1 says 2^63 less a page

// "max", nothing and nonsense are no number.
double number(const std::string& text, double otherwise = 0) {
  std::istringstream in(text);
  double value = 0;
  return in >> value ? value : otherwise;
}

void limit_cores(GroupLimits& limits, double quota_us, double period_us) {
  if (quota_us <= 0 || period_us <= 0) return;
  const double cores = quota_us / period_us;
  limits.cores = limits.cores == 0 ? cores : std::min(limits.cores, cores);
}

void limit_memory(GroupLimits& limits, double most, double used) {
  if (most <= 0 || most >= static_cast<double>(kNoLimit)) return;
  const auto bytes = static_cast<std::uint64_t>(most);
  if (limits.memory != 0 && limits.memory <= bytes) return;
  limits.memory = bytes;
  limits.used = static_cast<std::uint64_t>(used);
}

void ask(GroupLimits& limits, const std::string& folder, const Read& read) {
  std::istringstream both(read(folder + "/cpu.max"));
  std::string quota, period;
  both >> quota >> period;
  limit_cores(limits, number(quota), number(period));
  limit_cores(limits, number(read(folder + "/cpu.cfs_quota_us")), number(read(folder + "/cpu.cfs_period_us")));
  limit_memory(limits, number(read(folder + "/memory.max")), number(read(folder + "/memory.current")));
  limit_memory(limits, number(read(folder + "/memory.limit_in_bytes")),
               number(read(folder + "/memory.usage_in_bytes")));
}

}  // namespace

GroupLimits limits_of_group(const std::string& membership, const Read& read) {
  GroupLimits limits;
  std::istringstream lines(membership);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controller = line.substr(first + 1, second - first - 1);
    const std::string root = "/sys/fs/cgroup" + (controller.empty() ? "" : "/" + controller);
    std::string path = line.substr(second + 1);
    while (!path.empty() && path != "/") {
      ask(limits, root + path, read);
      path.erase(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
    }
    ask(limits, root, read);
  }
  return limits;
}

}  // namespace troupe
