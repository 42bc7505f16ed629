// JSONL: a file of lines, each a JSON object; blank lines are passed over. Sentences name file and line.
#pragma once

#include <algorithm>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace troupe {

struct JsonLine {
  std::string_view text;
  std::int64_t number = 0;  // counted from 1
};

template <typename Function>
void for_each_json_line(std::string_view all, const Function& function) {
  std::size_t begin = 0;
  for (std::int64_t number = 1; begin < all.size(); ++number) {
    const std::size_t end = std::min(all.find('\n', begin), all.size());
    const JsonLine line{all.substr(begin, end - begin), number};
    if (line.text.find_first_not_of(" \t\r") != std::string_view::npos) function(line);
    begin = end + 1;
  }
}

// Throws Error: not JSON.
nlohmann::json parse_json_line(const std::string& path, const JsonLine& line);
// Throws Error: not an object with a string under `key`.
std::string text_of_json_line(const std::string& path, const JsonLine& line, const std::string& key);

}  // namespace troupe
