// A small file that is whole or isn't there, however the process ends: written aside, then renamed. And read whole.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace troupe {

// Throws Error if it can't be written.
void write_whole_file(const std::string& path, const std::string& text);

// "" if it isn't there or can't be read.
std::string read_whole_file(const std::string& path);

// The JSON object that a file holds; throws Error, which names the file, if it holds none.
nlohmann::json read_json_file(const std::string& path);

}  // namespace troupe
