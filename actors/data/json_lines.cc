#include "actors/data/json_lines.h"

#include <nlohmann/json.hpp>

#include "kernels/base/error.h"

namespace troupe {

nlohmann::json parse_json_line(const std::string& path, const JsonLine& line) {
  try {
    return nlohmann::json::parse(line.text);
  } catch (const nlohmann::json::exception& problem) {
    throw Error("{}:{}: not json ({})", path, line.number, problem.what());
  }
}

std::string text_of_json_line(const std::string& path, const JsonLine& line, const std::string& key) {
  const nlohmann::json json = parse_json_line(path, line);
  if (!json.is_object() || !json.contains(key) || !json[key].is_string()) {
    throw Error("{}:{}: not an object with a string \"{}\" (data.text_key)", path, line.number, key);
  }
  return json[key].get<std::string>();
}

}  // namespace troupe
