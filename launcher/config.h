// Reads a configuration: TOML file, then --set key=value pairs, then checks. toml++ is used here and for faults.
#pragma once

#include <string>
#include <vector>

#include "actors/config.h"

namespace troupe {

// What `troupe train` is given: one run, or phases one after another, each a run that begins with the weights of the one
// before. Every [[phase]] has the keys of the file, and its own over them.
struct Recipe {
  std::string name;
  bool has_phases = false;
  std::vector<Config> phases;  // one without [[phase]]
  BudgetConfig budget;         // of all phases together
};
Recipe load_recipe(const std::string& path, const std::vector<std::string>& sets);
Recipe recipe_from_text(const std::string& text, const std::string& file_name, const std::vector<std::string>& sets,
                        bool checked);
std::string recipe_to_toml(const Recipe& recipe);

// `path`: a file; relative data paths are taken from the working directory first, then from the file's folder.
// `sets`: "train.steps=30" (the value is TOML). Throws Error:
// "configs/tiny.toml:12: model.num_experts_per_tok is 9, must be 1..8 (model.n_routed_experts); ...".
Config load_config(const std::string& path, const std::vector<std::string>& sets);
// checked false: keys and ranges only; a finished run's data may have moved.
Config config_from_text(const std::string& text, const std::string& file_name, const std::vector<std::string>& sets,
                        bool checked = true);
// configs/hardware/NAME.toml, by name or path; paths are taken from the working directory, then from the program's.
struct HardwareFile {
  std::string path;
  HardwareConfig hardware;
};
HardwareFile load_hardware(const std::string& name);
// Throws Error with the first thing that can't be, with its key.
void check_config(const Config& config);
// The whole resolved configuration as TOML; config_from_text reads it back to an equal Config.
std::string config_to_toml(const Config& config);
// Digest of everything that the numbers depend on (model, train, data; not layout, device, limits): sha256 hex.
std::string numbers_digest(const Config& config);
// Keys of the numbers that differ, "train.seed: 1 -> 2"; train.steps and evaluate/checkpoint schedules don't count.
std::vector<std::string> changed_numbers(const Config& before, const Config& after);
// All keys with type, default, range and a line of meaning, for `troupe config --keys`.
std::string describe_keys();

}  // namespace troupe
