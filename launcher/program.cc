#include "launcher/program.h"

#include <filesystem>

namespace troupe {

namespace fs = std::filesystem;

std::string program() {
  std::error_code failed;
  const fs::path self = fs::read_symlink("/proc/self/exe", failed);
  if (failed) return "troupe";
  const fs::path near = self.lexically_relative(fs::current_path(failed));
  if (failed || near.empty() || near.string().starts_with("../..")) return self.string();
  return near.has_parent_path() ? near.string() : "./" + near.string();
}

}  // namespace troupe
