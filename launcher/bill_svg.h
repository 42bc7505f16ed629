// The bill as a picture: a bar of all compute threads' time, cut into where it went; several runs' bars to one scale of
// shares.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace troupe {

struct BillBar {
  std::string name;     // of the run; "": it is the only one
  nlohmann::json line;  // of kind bill, of metrics.jsonl
};

std::string bill_svg(const std::vector<BillBar>& bars, double width = 1040);

}  // namespace troupe
