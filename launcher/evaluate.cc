// `troupe eval RUN --files F`: one JSON line with the loss over the whole held-out part. With --tasks: evaluate_tasks.cc.
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "actors/checkpoint/manifest.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "launcher/run_config.h"
#include "launcher/tools.h"
#include "launcher/whole_file.h"
#include "launcher/world.h"

namespace troupe {

namespace {

// What the checkpoint's manifest says that it was trained on: SHA-256 of files. Empty: no manifest, or no files.
std::set<std::string> trained_on(const std::string& checkpoint) {
  std::set<std::string> files;
  const std::string file = checkpoint + "/manifest.json";
  if (!std::filesystem::exists(file)) return files;
  const auto manifest = read_json_file(file);
  for (const auto& source : manifest.value("data", nlohmann::json::array())) files.insert(source.value("sha256", ""));
  return files;
}

}  // namespace

int evaluate(const EvaluateOptions& options) {
  if (!options.tasks.empty()) return evaluate_tasks(options);
  const Loaded loaded = load_model(options.run, options.sets);
  start_log("troupe", "", LogLevel::warning);
  if (options.files.empty() && loaded.config.data.kind == "none")
    throw Error("eval: {} has no data of its own here; name text with --files FILE", options.run);
  WorldOptions world_options;
  world_options.mode = RunMode::evaluate;
  world_options.corpus = options.files.empty()
                             ? open_corpus(loaded.config)
                             : open_evaluation_files(loaded.config, options.files, trained_on(loaded.checkpoint));
  Config config = loaded.config;
  config.train.steps = 0;  // all of the held-out part, whatever version it is
  World world(config, world_options);
  std::string line;
  Recover begin;
  begin.path = loaded.checkpoint;
  begin.version = checkpoint_version(std::filesystem::path(loaded.checkpoint).filename().string()).value_or(0);
  begin.weights_only = true;
  world.recover(begin);
  world.run([&](const Report& report) {
    if (report.kind == "evaluation") line = report.json;
  });
  std::printf("%s\n", line.c_str());
  return 0;
}

}  // namespace troupe
