// Reads a configuration: model.config's JSON, the hardware file, the TOML file, then --set pairs, then the checks.
// Law: nothing is guessed. An unknown key, a wrong type or an impossible value is an Error naming its place.
#include "launcher/config.h"

#include <toml++/toml.h>

#include <algorithm>
#include <climits>
#include <deque>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "actors/data/tokenizer.h"
#include "kernels/base/error.h"
#include "launcher/config_keys.h"

namespace troupe {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModelConfig = "model.config";
constexpr const char* kPhase = "phase";

std::string read_file(const std::string& path, const std::string& place) {
  std::error_code failed;
  if (!fs::exists(path, failed)) throw Error("{}: no such file", place);
  if (fs::is_directory(path, failed)) throw Error("{}: is a folder, must be a file", place);
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) throw Error("{}: can't be read, check its permissions", place);
  return text.str();
}

// One value that somebody wrote, and where.
struct Setting {
  std::string key, place;
  const toml::node* node = nullptr;
  bool from_set = false;
  std::string text;  // of --set, as it was written
};

std::string node_text(const toml::node& node) {
  if (const auto* text = node.as_string()) return fmt::format("{} (a string)", in_quotes(text->get()));
  if (const auto* whole = node.as_integer()) return fmt::format("{} (an integer)", whole->get());
  if (const auto* real = node.as_floating_point()) return fmt::format("{} (a number with a point)", real->get());
  if (const auto* truth = node.as_boolean()) return truth->get() ? "true" : "false";
  if (node.is_array()) return "a list";
  return node.is_table() ? "a table" : "a date or time";
}

// Gives a setting's value to the place where it belongs, or says what type or range was expected.
class Assign {
 public:
  Assign(const Setting& setting, const Key& key, const Slot& slot) : setting_(setting), key_(key), slot_(slot) {}

  void operator()(std::monostate) const {}
  void operator()(bool* value) const {
    const auto* node = setting_.node->as_boolean();
    if (node == nullptr) refuse_type();
    *value = node->get();
  }
  void operator()(int* value) const { *value = static_cast<int>(integer(INT_MAX)); }
  void operator()(std::int64_t* value) const { *value = integer(LLONG_MAX); }
  void operator()(std::uint64_t* value) const {
    const std::int64_t whole = integer(LLONG_MAX);
    if (whole < 0) refuse_range();
    *value = static_cast<std::uint64_t>(whole);
  }
  void operator()(std::optional<int>* value) const {
    const auto whole = static_cast<int>(integer(INT_MAX));
    *value = whole == 0 ? std::nullopt : std::optional<int>(whole);
  }
  void operator()(double* value) const { *value = number(*setting_.node); }
  void operator()(std::string* value) const { *value = string(*setting_.node); }
  void operator()(RopeType type) const {
    const std::string word = string(*setting_.node);
    if (!key_.allowed.admits(word)) refuse_range();
    if (word == "none") type.scaling->reset();
    if (word != "none" && !*type.scaling) type.scaling->emplace();
  }
  // One value stands for a list of one: --set data.files=PATH.
  void operator()(std::vector<std::string>* values) const {
    values->clear();
    each([&](const toml::node& node) { values->push_back(string(node)); });
  }
  void operator()(std::vector<double>* values) const {
    values->clear();
    each([&](const toml::node& node) { values->push_back(number(node)); });
  }

 private:
  [[noreturn]] void refuse_type() const {
    throw Error("{}: {} is {}, must be {}", setting_.place, key_.name, node_text(*setting_.node), type_text(slot_));
  }
  [[noreturn]] void refuse_range() const {
    const std::string must = key_.allowed.text();
    throw Error("{}: {} is {}, must be {}", setting_.place, key_.name, node_text(*setting_.node),
                must.empty() ? "smaller" : must);
  }
  std::int64_t integer(std::int64_t most) const {
    const auto* node = setting_.node->as_integer();
    if (node == nullptr) refuse_type();
    if (node->get() > most || node->get() < -most) {
      throw Error("{}: {} is {}, must be at most {}", setting_.place, key_.name, node->get(), most);
    }
    return node->get();
  }
  double number(const toml::node& node) const {
    if (!node.is_number()) refuse_type();
    return node.is_integer() ? static_cast<double>(node.as_integer()->get()) : node.as_floating_point()->get();
  }
  std::string string(const toml::node& node) const {
    if (node.is_string()) return node.as_string()->get();
    // A word from the command line that happens to look like a number or a date is still a word.
    if (setting_.from_set && node.is_value()) return setting_.text;
    refuse_type();
  }
  template <typename Take>
  void each(Take take) const {
    const auto* list = setting_.node->as_array();
    if (list == nullptr) return take(*setting_.node);
    for (const toml::node& node : *list) take(node);
  }

  const Setting& setting_;
  const Key& key_;
  const Slot& slot_;
};

class Reader {
 public:
  // phase: which [[phase]] is laid over the rest; none: the rest alone.
  explicit Reader(std::string file_name, std::optional<std::size_t> phase = {})
      : file_name_(std::move(file_name)), phase_(phase), keys_(config_keys()) {}

  void read(const std::string& text, const std::string& file, const std::string& prefix);
  void set(const std::string& set);
  Config config(bool checked);
  std::size_t phases() const { return phases_; }  // of the file
  std::string place_of(const std::string& sentence) const;
  std::string find_hardware(const std::string& name, std::string& looked) const;

 private:
  void lay_over(const toml::node& phases, const Setting& from);
  void collect(const std::string& name, const toml::node& node, const Setting& from);
  void refuse_unknown(const std::string& name, const Setting& setting) const;
  const Setting* last(const std::string& key) const;
  bool is_table(const std::string& name) const;
  std::string find(const std::string& path) const;
  void read_model_config(Config& config) const;
  void read_hardware();
  void assign(Config& config) const;

  std::string file_name_;
  std::optional<std::size_t> phase_;
  std::size_t phases_ = 0;
  const std::vector<Key>& keys_;
  std::deque<toml::table> tables_;  // the settings point into them
  std::vector<Setting> settings_;   // later ones win
};

void Reader::read(const std::string& text, const std::string& file, const std::string& prefix) {
  try {
    tables_.push_back(toml::parse(text, file));
  } catch (const toml::parse_error& error) {
    const auto where = error.source().begin;
    throw Error("{}:{}:{}: not TOML: {}", file, where.line, where.column, error.description());
  }
  collect(prefix, tables_.back(), Setting{.key = "", .place = file, .text = ""});
}

void Reader::set(const std::string& set) {
  const std::string place = "--set " + set;
  const std::size_t equals = set.find('=');
  if (equals == std::string::npos) throw Error("{}: must be KEY=VALUE, as in --set train.steps=30", place);
  const auto trimmed = [](const std::string& text) {
    const std::size_t first = text.find_first_not_of(" \t"), past = text.find_last_not_of(" \t") + 1;
    return first == std::string::npos ? std::string() : text.substr(first, past - first);
  };
  const std::string key = trimmed(set.substr(0, equals)), value = trimmed(set.substr(equals + 1));
  if (key.empty()) throw Error("{}: must be KEY=VALUE, as in --set train.steps=30", place);
  try {
    tables_.push_back(toml::parse("value = " + value));
  } catch (const toml::parse_error& error) {
    const bool was_meant_as_toml = !value.empty() && std::string("[{\"'").find(value[0]) != std::string::npos;
    if (was_meant_as_toml) throw Error("{}: not TOML: {}", place, error.description());
    tables_.push_back(toml::table{{"value", value}});
  }
  collect(key, *tables_.back().get("value"), Setting{.key = "", .place = place, .from_set = true, .text = value});
}

// Walks down to the leaves; every name on the way must be a table or a key that we know.
void Reader::collect(const std::string& name, const toml::node& node, const Setting& from) {
  Setting setting = from;
  if (!from.from_set && !name.empty()) setting.place = fmt::format("{}:{}", from.place, node.source().begin.line);
  setting.key = name;
  setting.node = &node;
  const bool known_table = name.empty() || is_table(name);
  if (known_table && !node.is_table()) {
    throw Error("{}: {} is {}, must be a table: [{}]", setting.place, name, node_text(node), name);
  }
  if (!known_table && (node.is_table() || name != kModelConfig)) refuse_unknown(name, setting);
  if (!known_table) return settings_.push_back(std::move(setting));
  const toml::node* phases = nullptr;
  for (const auto& [key, child] : *node.as_table()) {
    if (name.empty() && key.str() == kPhase) {
      phases = &child;
      continue;
    }
    collect(name.empty() ? std::string(key.str()) : fmt::format("{}.{}", name, key.str()), child, from);
  }
  if (phases != nullptr) lay_over(*phases, from);
}

// A phase has the keys of the file, and its own over them; a budget of the file is that of all phases together.
void Reader::lay_over(const toml::node& phases, const Setting& from) {
  if (phases_ > 0)
    throw Error("{}:{}: a phase has phases: write every [[phase]] by itself", from.place, phases.source().begin.line);
  const auto* list = phases.as_array();
  if (list == nullptr || list->empty() || !list->is_array_of_tables())
    throw Error("{}:{}: phase is {}, must be tables: [[phase]]", from.place, phases.source().begin.line,
                node_text(phases));
  phases_ = list->size();
  if (!phase_) return;
  std::erase_if(settings_, [](const Setting& setting) { return setting.key.starts_with("budget."); });
  collect("", *list->get(*phase_), from);
}

void Reader::refuse_unknown(const std::string& name, const Setting& setting) const {
  std::vector<std::string> names = {kModelConfig};
  for (const Key& key : keys_) names.push_back(key.name);
  const bool known = std::find(names.begin(), names.end(), name) != names.end();
  if (known && setting.node->is_table()) throw Error("{}: {} is a table, must be a value", setting.place, name);
  if (known) return;
  if (setting.node->is_table()) {
    for (std::string& key : names) key = key.substr(0, key.rfind('.'));
  }
  const std::string near = nearest(name, names);
  throw Error("{}: {} is not a {}{}; troupe config --keys lists them all", setting.place, name,
              setting.node->is_table() ? "table" : "key", near.empty() ? "" : ", did you mean " + near);
}

const Setting* Reader::last(const std::string& key) const {
  const Setting* found = nullptr;
  for (const Setting& setting : settings_) {
    if (setting.key == key) found = &setting;
  }
  return found;
}

bool Reader::is_table(const std::string& name) const {
  return std::any_of(keys_.begin(), keys_.end(), [&](const Key& key) { return key.name.starts_with(name + "."); });
}

// Where the key that a sentence begins with was written; a key of the model may come from model.config.
std::string Reader::place_of(const std::string& sentence) const {
  const std::string key = sentence.substr(0, sentence.find(' '));
  const Setting* setting = last(key);
  if (setting == nullptr && key.starts_with("model.")) setting = last(kModelConfig);
  return setting == nullptr ? file_name_ : setting->place;
}

// A relative path is taken from the working directory, then from the configuration's folder, then from its parent.
// "" when it is in none of them. The answer is absolute: a run may be resumed from elsewhere.
std::string Reader::find(const std::string& path) const {
  const fs::path folder = fs::absolute(file_name_).parent_path();
  for (const fs::path& candidate : {fs::absolute(path), folder / path, folder.parent_path() / path}) {
    std::error_code failed;
    if (fs::exists(candidate, failed)) return candidate.lexically_normal().string();
  }
  return "";
}

std::string Reader::find_hardware(const std::string& name, std::string& looked) const {
  const bool is_path = name.find('/') != std::string::npos || name.ends_with(".toml");
  if (is_path) {
    looked = name;
    return find(name);
  }
  std::error_code failed;
  const fs::path program = fs::read_symlink("/proc/self/exe", failed).parent_path();
  std::vector<fs::path> folders = {fs::path(file_name_).parent_path(), "configs", program / "../configs",
                                   program / "../../configs"};
  if (folders[0].lexically_normal() == folders[1]) folders.erase(folders.begin());
  for (const fs::path& folder : folders) {
    const std::string candidate = (folder / "hardware" / (name + ".toml")).lexically_normal().string();
    looked += (looked.empty() ? "" : ", ") + candidate;
    if (fs::exists(candidate, failed)) return candidate;
  }
  return "";
}

void Reader::read_model_config(Config& config) const {
  const Setting* setting = last(kModelConfig);
  if (setting == nullptr) return;
  Key key{kModelConfig, nullptr, {}, "", true};
  std::string path;
  const Slot slot = &path;
  std::visit(Assign(*setting, key, slot), slot);
  const std::string found = find(path);
  const std::string place = fmt::format("{}: model.config: {}", setting->place, path);
  const std::string text = read_file(found.empty() ? path : found, place);
  try {
    config.model = model_config_from_json(nlohmann::json::parse(text));
  } catch (const nlohmann::json::exception& error) {
    throw Error("{}: not a config.json: {}", place, error.what());
  } catch (const Error& error) {
    throw Error("{}: {}", place, error.what());
  }
}

// A resolved configuration carries its own [hardware]; otherwise device.hardware names a file. Its settings go first,
// so that --set hardware.KEY=VALUE still wins.
void Reader::read_hardware() {
  const Setting* named = last("device.hardware");
  std::vector<Setting> written;
  const bool named_anew = named != nullptr && named->from_set;
  for (const Setting& setting : settings_) {
    const bool ours = setting.key.starts_with("hardware.") && !setting.from_set;
    if (ours && !named_anew) return;
    if (!ours) written.push_back(setting);
  }
  const Key* key = nullptr;
  for (const Key& each : keys_) {
    if (each.name == "device.hardware") key = &each;
  }
  Config config;
  const Slot slot = &config.device.hardware;
  if (named != nullptr) std::visit(Assign(*named, *key, slot), slot);
  std::string looked;
  const std::string found = find_hardware(config.device.hardware, looked);
  if (found.empty() && named == nullptr) return;  // HardwareConfig is a processor of its own
  if (found.empty()) {
    throw Error(
        "{}: device.hardware is {}, which has no file (looked for {}); copy configs/hardware/cpu.toml and fill it",
        named->place, in_quotes(config.device.hardware), looked);
  }
  settings_.clear();
  read(read_file(found, found), found, "hardware");
  settings_.insert(settings_.end(), written.begin(), written.end());
}

void Reader::assign(Config& config) const {
  std::map<std::string, const Key*> by_name;
  for (const Key& key : keys_) by_name[key.name] = &key;
  for (const Setting& setting : settings_) {
    if (setting.key == kModelConfig) continue;
    const Key& key = *by_name.at(setting.key);
    const Slot slot = key.slot(config, true);
    std::visit(Assign(setting, key, slot), slot);
  }
}

Config Reader::config(bool checked) {
  Config config;
  read_hardware();
  read_model_config(config);
  assign(config);
  for (std::vector<std::string>* files : {&config.data.files, &config.task.files}) {
    for (std::string& file : *files) {
      const std::string found = find(file);
      if (!found.empty()) file = found;
    }
  }
  if (!tokenizer_file_of(config.data.tokenizer).empty()) {
    const std::string found = find(config.data.tokenizer);
    if (!found.empty()) config.data.tokenizer = found;
  }
  const std::string why = checked ? why_impossible(config) : "";
  if (!why.empty()) throw Error("{}: {}", place_of(why), why);
  return config;
}

}  // namespace

namespace {

std::string key_of(const std::string& set) {
  const std::string key = set.substr(0, set.find('='));
  const std::size_t first = key.find_first_not_of(" \t");
  return first == std::string::npos ? "" : key.substr(first, key.find_last_not_of(" \t") + 1 - first);
}

// "phase.cold.train.steps=30" is for the phase cold alone, without its first two words; a budget and a name that are set
// are the run's.
std::vector<std::string> sets_of(const std::vector<std::string>& sets, const std::string& phase) {
  std::vector<std::string> own;
  for (const std::string& set : sets) {
    const std::string prefix = fmt::format("{}.{}.", kPhase, phase);
    if (set.starts_with(prefix))
      own.push_back(set.substr(prefix.size()));
    else if (!set.starts_with(fmt::format("{}.", kPhase)) && !set.starts_with("budget.") && key_of(set) != "name")
      own.push_back(set);
  }
  return own;
}

std::vector<std::string> sets_of_run(const std::vector<std::string>& sets) {
  std::vector<std::string> own;
  for (const std::string& set : sets)
    if (!set.starts_with(fmt::format("{}.", kPhase))) own.push_back(set);
  return own;
}

void refuse_unknown_phases(const std::vector<std::string>& sets, const std::vector<std::string>& phases) {
  for (const std::string& set : sets) {
    if (!set.starts_with(fmt::format("{}.", kPhase))) continue;
    const std::string rest = set.substr(std::string(kPhase).size() + 1), name = rest.substr(0, rest.find('.'));
    if (std::find(phases.begin(), phases.end(), name) == phases.end())
      throw Error("--set {}: there is no phase {}", set, in_quotes(name));
  }
}

// Whoever asks a model needs one: by name, or of a phase before.
void refuse_phases_without_weights(const Recipe& recipe, const std::string& file_name) {
  bool trained = false;
  for (const Config& phase : recipe.phases) {
    const bool learns = phase.kind == "distill";
    const std::string& named = learns ? phase.distill.teacher : phase.train.start_from;
    if (!trained && named.empty() && (learns || phase.kind == "evaluate"))
      throw Error("{}: phase {} asks a model, and no phase before it trains one: name its weights with {}", file_name,
                  in_quotes(phase.name), learns ? "distill.teacher" : "train.start_from");
    trained = trained || phase.kind != "evaluate";
  }
}

// Of all phases together money and time add up; steps, tokens and accuracies are of one.
void refuse_budget_of_one_phase(const BudgetConfig& budget, const std::string& file_name) {
  const char* const key = budget.max_steps > 0        ? "max_steps"
                          : budget.max_tokens > 0     ? "max_tokens"
                          : budget.until_accuracy > 0 ? "until_accuracy"
                                                      : nullptr;
  if (key != nullptr)
    throw Error(
        "{}: budget.{} ends a phase, not all of them: give it to one ([phase.budget] in the file, or --set "
        "phase.NAME.budget.{}=...); budget.max_hours and budget.max_cost are for all together",
        file_name, key, key);
}

}  // namespace

Recipe recipe_from_text(const std::string& text, const std::string& file_name, const std::vector<std::string>& sets,
                        bool checked) {
  Reader base(file_name);
  base.read(text, file_name, "");
  Recipe recipe;
  if (base.phases() == 0) {
    recipe.phases.push_back(config_from_text(text, file_name, sets, checked));
    recipe.name = recipe.phases[0].name;
    return recipe;
  }
  const std::string name_of_file = base.config(false).name;
  for (const std::string& set : sets_of_run(sets)) base.set(set);
  const Config run = base.config(false);
  std::vector<std::string> names;  // as the file has them
  recipe.name = run.name;
  recipe.budget = run.budget;
  if (checked) refuse_budget_of_one_phase(recipe.budget, file_name);
  recipe.has_phases = true;
  for (std::size_t i = 0; i < base.phases(); ++i) {
    const auto read = [&](const std::vector<std::string>& own, bool check) {
      Reader reader(file_name, i);
      reader.read(text, file_name, "");
      for (const std::string& set : own) reader.set(set);
      return reader.config(check);
    };
    names.push_back(read({}, false).name);
    const Config phase = read(sets_of(sets, names.back()), checked);
    for (const Config& other : recipe.phases)
      if (other.name == phase.name || phase.name == name_of_file)
        throw Error("{}: phase {} has the name {}, which another has: give every [[phase]] its own name", file_name,
                    i + 1, in_quotes(phase.name));
    recipe.phases.push_back(phase);
  }
  refuse_unknown_phases(sets, names);
  if (checked) refuse_phases_without_weights(recipe, file_name);
  return recipe;
}

Recipe load_recipe(const std::string& path, const std::vector<std::string>& sets) {
  return recipe_from_text(read_file(path, path), path, sets, true);
}

HardwareFile load_hardware(const std::string& name) {
  std::string looked;
  const std::string found = Reader(name).find_hardware(name, looked);
  if (found.empty())
    throw Error("--cluster {}: no such file (looked for {}); copy configs/hardware/h100.toml and fill it", name,
                looked);
  Reader reader(found);
  reader.read(read_file(found, found), found, "hardware");
  const Config config = reader.config(false);
  const std::string why = why_out_of_range(config);
  if (!why.empty()) throw Error("{}: {}", reader.place_of(why), why);
  return {found, config.hardware};
}

Config load_config(const std::string& path, const std::vector<std::string>& sets) {
  Recipe recipe = load_recipe(path, sets);
  if (recipe.has_phases)
    throw Error(
        "{}: has phases, and this command takes a configuration of one run: name that of a phase, "
        "RUN/phases/NAME/config.toml",
        path);
  return recipe.phases[0];
}

Config config_from_text(const std::string& text, const std::string& file_name, const std::vector<std::string>& sets,
                        bool checked) {
  Reader reader(file_name);
  reader.read(text, file_name, "");
  for (const std::string& set : sets) reader.set(set);
  return reader.config(checked);
}

}  // namespace troupe
