#include "launcher/whole_file.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "kernels/base/error.h"

namespace troupe {

void write_whole_file(const std::string& path, const std::string& text) {
  const std::string aside = path + ".partial";
  std::ofstream file(aside, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (!file) throw Error("{}: can't be written; is the disk full, or the folder not writable?", path);
  std::error_code failed;
  std::filesystem::rename(aside, path, failed);
  if (failed) throw Error("{}: can't be written: {}; choose another place with --out", path, failed.message());
}

std::string read_whole_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();  // throws nothing where a file of /proc ends under it
  return text.str();
}

}  // namespace troupe
