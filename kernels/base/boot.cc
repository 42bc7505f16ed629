#include "kernels/base/boot.h"

#include <cstdlib>
#include <fstream>
#include <string>

namespace troupe {

std::uint64_t machine_boot() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string text;
  std::getline(file, text);
  std::erase(text, '-');
  return text.size() < 16 ? 0 : std::strtoull(text.substr(0, 16).c_str(), nullptr, 16);
}

}  // namespace troupe
