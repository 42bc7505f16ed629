// `troupe eval RUN --files F`: one JSON line with the loss over the whole held-out part.
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "actors/checkpoint/manifest.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "launcher/run_config.h"
#include "launcher/tools.h"
#include "launcher/world.h"

namespace troupe {

int evaluate(const EvaluateOptions& options) {
  const Loaded loaded = load_model(options.run, options.sets);
  start_log("troupe", "", LogLevel::warning);
  if (options.files.empty() && loaded.config.data.kind == "none")
    throw Error("eval: {} has no data of its own here; name text with --files FILE", options.run);
  WorldOptions world_options;
  world_options.mode = RunMode::evaluate;
  world_options.corpus =
      options.files.empty() ? open_corpus(loaded.config) : open_evaluation_files(loaded.config, options.files);
  Config config = loaded.config;
  config.train.steps = 0;  // all of the held-out part, whatever version it is
  World world(config, world_options);
  std::string line;
  Restore begin;
  begin.path = loaded.checkpoint;
  begin.version = checkpoint_version(std::filesystem::path(loaded.checkpoint).filename().string()).value_or(0);
  begin.weights_only = true;
  world.restore(begin);
  world.run([&](const Report& report) {
    if (report.kind == "evaluation") line = report.json;
  });
  std::printf("%s\n", line.c_str());
  return 0;
}

}  // namespace troupe
