#include "launcher/whole_file.h"

#include <filesystem>
#include <fstream>

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

}  // namespace troupe
