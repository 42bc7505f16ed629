// Capture: a sink for the inside of a run, for `troupe check` and tests. Null in production; a stage fills it at the
// points where each value is final.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace troupe {

struct Capture {
  struct Values {
    std::vector<std::int64_t> shape;
    std::vector<float> f32;
    std::vector<std::int64_t> i64;
  };
  std::map<std::string, Values> values;
  bool forward = true;    // hidden states, routing
  bool gradients = true;  // of the next vote
};

}  // namespace troupe
