#include "messages/ucx_ways.h"

#include <net/if.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "kernels/base/boot.h"
#include "kernels/base/error.h"

namespace troupe {

namespace {

namespace fs = std::filesystem;

constexpr std::array<UcxWays, 5> kWays = {{{"auto", "shm,self", true, false, false},
                                           {"shm", "shm,self", true, false, false},
                                           {"tcp", "tcp,self", false, true, false},
                                           {"ib", "ib,shm,self", true, false, true},
                                           {"any", "ib,tcp,shm,self", true, true, true}}};

constexpr const char* kAdapters = "/sys/class/infiniband";

// "mlx5_0:1": as UCX names an adapter's port.
bool is_port(const std::string& interface) {
  const std::size_t colon = interface.find(':');
  if (colon == 0 || colon == std::string::npos) return false;
  std::error_code none;
  return fs::exists(fs::path(kAdapters) / interface.substr(0, colon) / "ports" / interface.substr(colon + 1), none);
}

}  // namespace

const UcxWays& ucx_ways_of(const UcxOptions& options) {
  const auto ways =
      std::find_if(kWays.begin(), kWays.end(), [&](const UcxWays& one) { return options.tls == one.name; });
  if (ways == kWays.end())
    throw Error(R"(layout.transport is "{}", must be "auto", "shm", "tcp", "ib" or "any")", options.tls);
  std::error_code none;
  if (options.tls == "ib" && fs::directory_iterator(kAdapters, none) == fs::directory_iterator())
    throw Error(
        R"(layout.transport is "ib", but this host has no InfiniBand or RoCE adapter; "any" takes TCP where there is none)");
  if (!ways->between() || options.interface.empty()) return *ways;
  const bool is_there = (ways->sockets && ::if_nametoindex(options.interface.c_str()) != 0) ||
                        (ways->adapters && is_port(options.interface));
  if (!is_there)
    throw Error(R"(there is no {} "{}" on this host that "{}" could take; {})",
                ways->sockets ? "network interface" : "adapter's port", options.interface, options.tls,
                ways->adapters ? "`ip link` lists interfaces, `ibstat` adapters, whose first port is NAME:1"
                               : "`ip link` lists those there are");
  return *ways;
}

MachinePlace own_place() {
  std::array<std::uint64_t, 3> parts{machine_boot()};
  struct stat found {};
  if (::stat("/dev/shm", &found) == 0) parts[1] = found.st_dev;
  if (::stat("/proc/self/ns/net", &found) == 0) parts[2] = found.st_ino;
  MachinePlace place;
  std::memcpy(place.data(), parts.data(), sizeof parts);
  return place;
}

}  // namespace troupe
