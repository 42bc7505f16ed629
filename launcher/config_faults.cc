// Reads a fault file as a configuration is read: an unknown key, a wrong type or an impossible value is an Error that
// names its place.
#include <toml++/toml.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "kernels/base/error.h"
#include "launcher/config_keys.h"
#include "launcher/simulation/faults.h"

namespace troupe {

namespace {

constexpr double kMost = 1e12;

void add_range(std::vector<FaultKey>& keys, const std::string& name, Range& range, double least, double most) {
  keys.push_back({name + ".from", &range.from, least, most});
  keys.push_back({name + ".to", &range.to, least, most});
}

void add_fault(std::vector<FaultKey>& keys, const std::string& name, Fault& fault, double least, double most) {
  keys.push_back({name + ".chance", &fault.chance, 0, 1});
  add_range(keys, name, fault.size, least, most);
}

class FaultReader {
 public:
  explicit FaultReader(Faults& faults) : keys_(fault_keys(faults)) {}

  void walk(const std::string& name, const toml::node& node, const std::string& file, const std::string& set) {
    const std::string place = set.empty() ? fmt::format("{}:{}", file, node.source().begin.line) : set;
    const auto key = std::find_if(keys_.begin(), keys_.end(), [&](const FaultKey& k) { return k.name == name; });
    if (key != keys_.end()) return assign(*key, node, place);
    const bool on_the_way = name.empty() || std::any_of(keys_.begin(), keys_.end(), [&](const FaultKey& k) {
                              return k.name.starts_with(name + ".");
                            });
    if (!on_the_way) refuse(name, place);
    if (!node.is_table()) throw Error("{}: {} is a value, must be a table", place, name);
    for (const auto& [child, value] : *node.as_table())
      walk(name.empty() ? std::string(child.str()) : fmt::format("{}.{}", name, child.str()), value, file, set);
  }

  // A range must not be upside down.
  void check(const std::string& file) const {
    for (std::size_t i = 0; i + 1 < keys_.size(); ++i)
      if (keys_[i].name.ends_with(".from") && *keys_[i].place > *keys_[i + 1].place)
        throw Error("{}: {} is {}, must be at most {} ({})", file, keys_[i].name, *keys_[i].place, *keys_[i + 1].place,
                    keys_[i + 1].name);
  }

 private:
  static void assign(const FaultKey& key, const toml::node& node, const std::string& place) {
    const auto value = node.is_number() ? node.value<double>() : std::nullopt;
    if (!value) throw Error("{}: {} must be a number", place, key.name);
    if (!(*value >= key.least && *value <= key.most))
      throw Error("{}: {} is {}, must be {}..{}", place, key.name, *value, key.least, key.most);
    *key.place = *value;
  }
  [[noreturn]] void refuse(const std::string& name, const std::string& place) const {
    std::vector<std::string> names;
    for (const FaultKey& key : keys_) names.push_back(key.name);
    const std::string near = nearest(name, names);
    throw Error("{}: {} is not a key of a fault file{}", place, name, near.empty() ? "" : ", did you mean " + near);
  }

  std::vector<FaultKey> keys_;
};

toml::table parsed(const std::string& text, const std::string& file) {
  try {
    return toml::parse(text, file);
  } catch (const toml::parse_error& error) {
    const auto where = error.source().begin;
    throw Error("{}:{}:{}: not TOML: {}", file, where.line, where.column, error.description());
  }
}

}  // namespace

std::vector<FaultKey> fault_keys(Faults& f) {
  std::vector<FaultKey> keys;
  NetworkFaults& n = f.network;
  add_range(keys, "network.latency_us", n.latency_us, 1, kMost);
  add_range(keys, "network.bytes_per_us", n.bytes_per_us, 1e-3, kMost);
  add_fault(keys, "network.jitter", n.jitter, 1e-3, 1e3);
  add_fault(keys, "network.drop", n.drop, 1e-6, 0.5);
  add_fault(keys, "network.duplicate", n.duplicate, 1e-6, 0.5);
  add_fault(keys, "network.reorder", n.reorder, 1e-6, 1);
  add_fault(keys, "network.corrupt", n.corrupt, 1e-6, 0.5);
  add_fault(keys, "network.partition", n.partition, 1, 3e7);
  keys.push_back({"network.one_way", &n.one_way, 0, 1});
  add_fault(keys, "nodes.slow", f.nodes.slow, 1, 1e4);
  add_range(keys, "nodes.losses", f.nodes.losses, 0, 100);
  keys.push_back({"nodes.zombie", &f.nodes.zombie, 0, 1});
  add_range(keys, "nodes.back_after_us", f.nodes.back_after_us, 1, 3e7);
  keys.push_back({"nodes.whole_run", &f.nodes.whole_run, 0, 1});
  add_fault(keys, "disk.full", f.disk.full, 1, kMost);
  add_fault(keys, "disk.fall", f.disk.fall, 1, kMost);
  add_fault(keys, "disk.slow", f.disk.slow, 1, 1e6);
  return keys;
}

Faults faults_from_text(const std::string& text, const std::string& file_name, const std::vector<std::string>& sets) {
  Faults faults;
  FaultReader reader(faults);
  const toml::table file = parsed(text, file_name);
  reader.walk("", file, file_name, "");
  for (const std::string& set : sets) {
    const std::string place = "--fault " + set;
    if (set.find('=') == std::string::npos) throw Error("{}: must be KEY=VALUE", place);
    const toml::table line = parsed(set, place);
    reader.walk("", line, "", place);
  }
  reader.check(file_name);
  return faults;
}

Faults load_faults(const std::string& path, const std::vector<std::string>& sets) {
  if (path.empty()) return faults_from_text("", "--fault", sets);
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) throw Error("{}: can't be read", path);
  return faults_from_text(text.str(), path, sets);
}

}  // namespace troupe
