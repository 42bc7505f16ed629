#include "actors/build_info.h"

#include <fstream>

namespace troupe {

std::string build_version() { return std::string("troupe 0.1 (") + TROUPE_BUILD + ")"; }

std::string built_for() { return TROUPE_MARCH; }

namespace {

std::string read_machine_kind() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

}  // namespace

std::string machine_kind() {
  static const std::string kind = read_machine_kind();
  return kind;
}

}  // namespace troupe
