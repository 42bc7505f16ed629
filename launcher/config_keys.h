// The one list of configuration keys: name, place in Config, what is allowed, one line of meaning. Reading, writing,
// describing, comparing and checking all walk this list, so that a key is added here and nowhere else.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "actors/config.h"

namespace troupe {

// What a value may be: a range for numbers, a few words for strings. Every number must be finite.
struct Allowed {
  double least = -std::numeric_limits<double>::infinity(), most = std::numeric_limits<double>::infinity();
  bool above = false, below = false;  // the end itself is excluded
  std::vector<std::string> words;     // empty: any string

  bool admits(double value) const;
  bool admits(const std::string& value) const;
  std::string text() const;  // "1..8", "above 0", "float32 or bfloat16"; "" when everything is allowed
};

// The key model.rope_scaling.type: "yarn" makes the scaling, "none" clears it.
struct RopeType {
  std::optional<RopeScaling>* scaling;
};
// Where a key's value lives in one Config; monostate when its parent is absent.
using Slot = std::variant<std::monostate, bool*, int*, std::int64_t*, std::uint64_t*, double*, std::string*,
                          std::optional<int>*, std::vector<std::string>*, std::vector<double>*, RopeType>;

struct Key {
  std::string name;  // "train.steps"
  std::function<Slot(Config& config, bool create)> slot;
  Allowed allowed;
  std::string meaning;
  bool numbers = false;  // the loss curve and the weights depend on it
};

// In the order of the written file.
const std::vector<Key>& config_keys();
// "an integer", "a list of strings".
std::string type_text(const Slot& slot);
// The value as TOML; "" when absent.
std::string value_text(const Slot& slot);
std::string in_quotes(const std::string& text);
// The candidate with the fewest edits from `name`, or "" when none is near.
std::string nearest(const std::string& name, const std::vector<std::string>& candidates);

// The first reason why the configuration is impossible, beginning with the key ("train.steps is 0, must be 1.."), or
// "".
std::string why_impossible(const Config& config);
// The same of single values alone.
std::string why_out_of_range(const Config& config);

}  // namespace troupe
