#include "launcher/metrics_file.h"

#include <fstream>
#include <nlohmann/json.hpp>

namespace troupe {

void for_each_metric(const std::string& path,
                     const std::function<void(const std::string&, const nlohmann::json&)>& hear) {
  std::ifstream file(path);
  for (std::string text; std::getline(file, text);) {
    const auto line = nlohmann::json::parse(text, nullptr, false);
    if (!line.is_object()) continue;
    const auto kind = line.find("kind");
    if (kind != line.end() && kind->is_string()) hear(*kind, line);
  }
}

}  // namespace troupe
