#include "launcher/simulation/shrink.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "kernels/base/error.h"

namespace troupe {

namespace {

// The key's older value goes.
void put(std::vector<std::string>& all, const std::string& change) {
  const std::string key = change.substr(0, change.find('=') + 1);
  std::erase_if(all, [&](const std::string& old) { return old.starts_with(key); });
  all.push_back(change);
}

bool holds(const std::vector<std::string>& all, const std::string& change) {
  return std::find(all.begin(), all.end(), change) != all.end();
}

// What makes a world smaller, the largest cuts first. Of a key's values the first that keeps the law broken stays.
const std::vector<std::vector<std::string>> kFaults = {
    {"nodes.whole_run=0"},        {"nodes.losses.to=0", "nodes.losses.to=1", "nodes.losses.to=2"},
    {"nodes.zombie=0"},           {"network.partition.chance=0"},
    {"network.drop.chance=0"},    {"network.duplicate.chance=0"},
    {"network.reorder.chance=0"}, {"network.corrupt.chance=0"},
    {"network.jitter.chance=0"},  {"nodes.slow.chance=0"},
    {"disk.full.chance=0"},       {"disk.fall.chance=0"},
    {"disk.slow.chance=0"}};
const std::vector<std::vector<std::string>> kSets = {{"layout.nodes=1", "layout.nodes=2", "layout.nodes=3"},
                                                     {"layout.replicas=1", "layout.replicas=2"},
                                                     {"layout.stages=1", "layout.stages=2"},
                                                     {"layout.expert_shards=1", "layout.expert_shards=2"},
                                                     {"train.steps=1", "train.steps=2", "train.steps=3"},
                                                     {"evaluate.every_steps=0"},
                                                     {"checkpoint.every_steps=0"},
                                                     {"device.threads=1"},
                                                     {"train.recompute=false"},
                                                     {"train.dtype=\"float32\""}};

class Shrinker {
 public:
  Shrinker(Overrides begin, const std::function<std::string(const Overrides&)>& broken)
      : broken_(broken), best_{std::move(begin), "", 1} {
    best_.broken = broken_(best_.overrides);
    law_ = law_of(best_.broken);
  }
  Shrunk run() {
    for (bool smaller = true; smaller;) smaller = round();
    return best_;
  }

 private:
  // One of each key's values at the most; what has become smaller once may allow another.
  bool round() {
    bool any = false;
    if (best_.overrides.losses) any |= keeps([](Overrides& o) { o.losses = false; });
    for (const auto& values : kFaults) any |= first_of(values, &Overrides::faults);
    for (const auto& values : kSets) any |= first_of(values, &Overrides::sets);
    return any;
  }
  bool first_of(const std::vector<std::string>& values, std::vector<std::string> Overrides::*list) {
    for (const std::string& value : values) {
      if (holds(best_.overrides.*list, value)) return false;
      if (keeps([&](Overrides& o) {
            if (value == "nodes.losses.to=0" || value == "nodes.losses.to=1")
              put(o.faults, "nodes.losses.from=" + value.substr(value.size() - 1));
            put(o.*list, value);
          }))
        return true;
    }
    return false;
  }
  template <typename Change>
  bool keeps(Change change) {
    Overrides smaller = best_.overrides;
    change(smaller);
    ++best_.tried;
    std::string broken;
    try {
      broken = broken_(smaller);
    } catch (const Error&) {
      return false;  // no such world
    }
    if (law_of(broken) != law_) return false;
    best_.overrides = std::move(smaller);
    best_.broken = std::move(broken);
    return true;
  }

  const std::function<std::string(const Overrides&)>& broken_;
  Shrunk best_;
  std::string law_;
};

}  // namespace

std::string to_flags(const Overrides& overrides) {
  std::string text = overrides.losses ? " --losses" : "";
  for (const std::string& fault : overrides.faults) text += " --fault " + fault;
  for (const std::string& set : overrides.sets) text += fmt::format(" --set '{}'", set);
  return text;
}

// The first four words that carry no digit.
std::string law_of(const std::string& broken) {
  std::string law, word;
  int words = 0;
  for (const char c : broken + " ") {
    if (c != ' ') {
      word += c;
      continue;
    }
    bool plain = !word.empty() && word.find('/') == std::string::npos;
    for (const char letter : word) plain &= std::isdigit(static_cast<unsigned char>(letter)) == 0;
    if (plain && ++words <= 4) law += word + " ";
    word.clear();
  }
  return law;
}

Shrunk shrink(const Overrides& begin, const std::function<std::string(const Overrides&)>& broken) {
  return Shrinker(begin, broken).run();
}

}  // namespace troupe
