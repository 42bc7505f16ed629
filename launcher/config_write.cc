// A configuration as text: the resolved TOML, the list of keys, the digest and the differences of the numbers.
#include <fmt/format.h>

#include <filesystem>

#include "actors/checkpoint/manifest.h"
#include "actors/data/tokenizer.h"
#include "launcher/config.h"
#include "launcher/config_keys.h"

namespace troupe {
namespace {

// Of answers something is learned with rollouts alone.
bool numbers_depend_on(const Key& key, const Config& config) {
  const bool of_answers = key.name.starts_with("judge.") || key.name.starts_with("generate.");
  return key.numbers && (!of_answers || config.has_rollouts());
}

std::string table_of(const std::string& key) {
  const std::size_t dot = key.find('.');
  return dot == std::string::npos ? "" : key.substr(0, dot);
}

// Where a file lies changes no number: only its name counts here, its contents stand in the checkpoint's manifest
// (a tokenizer's: the run's folder holds it).
Config with_file_names(Config config) {
  for (std::string& file : config.data.files) file = std::filesystem::path(file).filename().string();
  config.data.tokenizer = tokenizer_file_of(config.data.tokenizer).empty() ? "bytes" : "tokenizer.json";
  return config;
}

}  // namespace

std::string config_to_toml(const Config& config) {
  Config copy = config;
  std::string text, table;
  for (const Key& key : config_keys()) {
    const std::string value = value_text(key.slot(copy, false));
    if (value.empty()) continue;
    if (table_of(key.name) != table) {
      table = table_of(key.name);
      text += fmt::format("\n[{}]\n", table);
    }
    const std::string own = table.empty() ? key.name : key.name.substr(table.size() + 1);
    text += fmt::format("{} = {}\n", own, value);
  }
  return text;
}

// Every key of every phase, so that nothing is left to the rest of the file.
std::string recipe_to_toml(const Recipe& recipe) {
  if (!recipe.has_phases) return config_to_toml(recipe.phases[0]);
  Config run;
  run.budget = recipe.budget;
  std::string text = fmt::format("name = {}\n\n[budget]\n", in_quotes(recipe.name));
  for (const Key& key : config_keys())
    if (key.name.starts_with("budget."))
      text += fmt::format("{} = {}\n", key.name.substr(7), value_text(key.slot(run, false)));
  for (const Config& phase : recipe.phases) {
    std::string own = config_to_toml(phase);
    for (std::size_t at = own.find("\n["); at != std::string::npos; at = own.find("\n[", at + 1))
      own.insert(at + 2, "phase.");
    text += "\n[[phase]]\n" + own;
  }
  return text;
}

std::string numbers_digest(const Config& config) {
  Config copy = with_file_names(config);
  std::string text;
  for (const Key& key : config_keys()) {
    if (numbers_depend_on(key, config)) text += fmt::format("{} = {}\n", key.name, value_text(key.slot(copy, false)));
  }
  return sha256(text);
}

std::vector<std::string> changed_numbers(const Config& before, const Config& after) {
  Config old_config = with_file_names(before), new_config = with_file_names(after);
  std::vector<std::string> changes;
  for (const Key& key : config_keys()) {
    if (!numbers_depend_on(key, after) || key.name == "train.steps") continue;
    const std::string was = value_text(key.slot(old_config, false)), is = value_text(key.slot(new_config, false));
    const auto shown = [](const std::string& value) { return value.empty() ? "absent" : value; };
    if (was != is) changes.push_back(fmt::format("{}: {} -> {}", key.name, shown(was), shown(is)));
  }
  return changes;
}

std::string describe_keys() {
  Config defaults;
  std::string text, table;
  for (const Key& key : config_keys()) {
    if (table_of(key.name) != table) {
      table = table_of(key.name);
      text += fmt::format("\n[{}]\n", table);
      if (table == "model")
        text += "model.config = PATH: a Hugging Face config.json to start from; [model] overrides it\n";
    }
    const std::string value = value_text(key.slot(defaults, false));
    const std::string type = type_text(key.slot(defaults, true)), allowed = key.allowed.text();
    if (key.name.starts_with("model.rope_scaling.")) defaults.model.rope_scaling.reset();
    text += fmt::format("{} = {}: {} ({}{}{})\n", key.name, value.empty() ? "absent" : value, key.meaning, type,
                        allowed.empty() ? "" : ", ", allowed);
  }
  return text;
}

}  // namespace troupe
