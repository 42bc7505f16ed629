// `troupe eval RUN --files F`: one JSON line with the loss over the whole held-out part.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "launcher/run_config.h"
#include "launcher/tools.h"
#include "launcher/world.h"

namespace troupe {

int evaluate(const EvaluateOptions& options) {
  const Loaded loaded = load_model(options.run, options.sets);
  start_log("troupe", "", LogLevel::warning);
  WorldOptions world_options;
  world_options.mode = RunMode::evaluate;
  world_options.corpus =
      options.files.empty() ? open_corpus(loaded.config) : open_evaluation_files(loaded.config, options.files);
  Config config = loaded.config;
  config.train.steps = 0;  // all of the held-out part, whatever version it is
  World world(config, world_options);
  std::string line;
  bool done = false;
  world.node().set_uplink([&](const Envelope& envelope) {
    const auto* report = std::get_if<Report>(&envelope.message);
    if (report == nullptr) return;
    if (report->kind == "problem")
      throw Error("{}", nlohmann::json::parse(report->json).at("sentence").get<std::string>());
    if (report->kind == "evaluation") line = report->json;
    if (report->kind == "finished") done = true;
  });
  Restore begin;
  begin.path = loaded.checkpoint;
  begin.weights_only = true;
  world.restore(begin);
  world.node().run([&] { return done; });
  std::printf("%s\n", line.c_str());
  return 0;
}

}  // namespace troupe
