// A run's metrics.jsonl, read back. The law: a line that a kill cut off is passed over, and so is one without a kind; of
// a file that isn't there nothing is heard.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace troupe {

// hear(kind, line), in the order of the file.
void for_each_metric(const std::string& path,
                     const std::function<void(const std::string&, const nlohmann::json&)>& hear);

}  // namespace troupe
