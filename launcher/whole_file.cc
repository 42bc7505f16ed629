#include "launcher/whole_file.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "kernels/base/error.h"

namespace troupe {

void write_whole_file(const std::string& path, const std::string& text) {
  const std::string aside = path + ".partial";
  std::ofstream file(aside, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  std::error_code failed, none;
  if (!file) {
    std::filesystem::remove(aside, none);
    throw Error("{}: can't be written; is the disk full, or the folder not writable?", path);
  }
  std::filesystem::rename(aside, path, failed);
  if (!failed) return;
  std::filesystem::remove(aside, none);
  throw Error("{}: can't be written: {}; choose another place with --out", path, failed.message());
}

std::string read_whole_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();  // throws nothing where a file of /proc ends under it
  return text.str();
}

nlohmann::json read_json_file(const std::string& path) {
  const std::string text = read_whole_file(path);
  if (text.empty()) throw Error("{}: it isn't there, is empty or can't be read", path);
  try {
    nlohmann::json read = nlohmann::json::parse(text);
    if (read.is_object()) return read;
  } catch (const nlohmann::json::parse_error& problem) {
    throw Error("{}: it isn't json from byte {} on; was it cut short, or changed by hand?", path, problem.byte);
  } catch (const nlohmann::json::out_of_range&) {
    throw Error("{}: it holds a number that is too large for any type", path);
  }
  throw Error("{}: it is json, but must be an object: {{\"key\": value, ...}}", path);
}

}  // namespace troupe
