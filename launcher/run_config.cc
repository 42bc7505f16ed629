#include "launcher/run_config.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "actors/checkpoint/manifest.h"
#include "kernels/base/error.h"
#include "launcher/config.h"
#include "launcher/machine.h"
#include "launcher/run_folder.h"
#include "launcher/whole_file.h"
#include "launcher/world.h"

namespace troupe {

namespace fs = std::filesystem;

namespace {

// Of a Hugging Face directory.
ModelConfig read_model_config(const std::string& folder) {
  const std::string file = folder + "/config.json";
  if (!fs::exists(file)) throw Error("{}: no config.json; is it a Hugging Face directory?", folder);
  const nlohmann::json told = read_json_file(file);
  try {
    return model_config_from_json(told);
  } catch (const Error& problem) {
    throw Error("{}: {}", file, problem.what());
  }
}

}  // namespace

Loaded load_model(const std::string& path, const std::vector<std::string>& sets) {
  Loaded loaded;
  loaded.checkpoint = resolve_checkpoint(path);
  // RUN/checkpoints/step-N: the run's configuration stands two folders up; so does a phase's.
  const fs::path run = fs::exists(path + "/config.toml") && !fs::exists(path + "/phases")
                           ? fs::path(path)
                           : fs::path(fs::absolute(loaded.checkpoint)).parent_path().parent_path();
  std::string text;
  if (fs::exists(run / "config.toml")) {
    Config config = load_run_config(run.string());
    config.layout = LayoutConfig{};
    if (config.has_rollouts()) config.kind = "pretrain", config.data.kind = "none";  // its model, as any other
    for (const std::string& file : config.data.files)
      if (!fs::exists(file)) config.data.kind = "none";  // the model is what counts here; its data may have moved
    if (fs::exists(run / "tokenizer.json")) config.data.tokenizer = (run / "tokenizer.json").string();
    text = config_to_toml(config);
  } else {
    Config config;
    config.model = read_model_config(loaded.checkpoint);
    config.data.kind = "none";  // no data is read by tools that only run the model
    config.evaluate.exact_match_problems = 0;
    if (fs::exists(loaded.checkpoint + "/tokenizer.json"))
      config.data.tokenizer = loaded.checkpoint + "/tokenizer.json";
    config.train.sequence_length = std::min(config.train.sequence_length, config.model.max_position_embeddings);
    text = config_to_toml(config);
  }
  loaded.config = config_from_text(text, path, sets);
  loaded.config.layout.nodes = 1;
  resolve_machine(loaded.config);
  return loaded;
}

}  // namespace troupe
