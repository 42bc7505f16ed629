// The run's token: RUN/token, readable by its owner alone. Who can read the file may control the run.
#pragma once

#include <cstddef>
#include <string>

namespace troupe {

constexpr std::size_t kTokenText = 64;  // letters
// Made if it isn't there. Throws Error: it can't be made or read, or others may read it.
std::string run_token(const std::string& run_folder);
// In a time that doesn't depend on where they differ.
bool same_token(const std::string& given, const std::string& token);

}  // namespace troupe
