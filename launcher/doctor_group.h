// What the control group of this process grants: of both versions, and of all groups above it. Pure but for `read`.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace troupe {

struct GroupLimits {
  double cores = 0;          // 0: no limit
  std::uint64_t memory = 0;  // bytes; 0: no limit
  std::uint64_t used = 0;    // of it
};

// membership: the text of /proc/self/cgroup. read: the text of a file, "" if it isn't there.
GroupLimits limits_of_group(const std::string& membership, const std::function<std::string(const std::string&)>& read);

}  // namespace troupe
