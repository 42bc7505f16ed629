#include "launcher/profile.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "launcher/config.h"
#include "launcher/machine.h"
#include "launcher/profile_report.h"
#include "launcher/world.h"

namespace troupe {

namespace {

constexpr int kWarmUpSteps = 3;

std::string head(const Profile& p) {
  const auto tokens = static_cast<double>(p.config.train.batch_sequences) * p.config.train.sequence_length;
  double flops = 0;
  for (const auto& [key, time] : p.ops.times()) flops += time.cost.flops;
  return fmt::format(
      "{} steps of {:.0f} tokens, {} compute threads: {:.1f} ms a step, {:.0f} tokens/s\n"
      "all ops: {:.1f} GFLOP a step, {:.1f} GFLOP/s; the hardware file says {:.0f} GFLOP/s for {} threads\n",
      p.steps, tokens, p.config.device.threads, p.ms_a_step(static_cast<double>(p.wall_us)),
      tokens * p.steps / (static_cast<double>(p.wall_us) * 1e-6), flops * 1e-9 / p.steps,
      flops * 1e-3 / static_cast<double>(p.wall_us), p.peak_gflops() * p.config.device.threads,
      p.config.device.threads);
}

// The configuration, made to measure: no evaluation, no checkpoint but the last, in one process.
Config measured_config(const ProfileOptions& options) {
  std::vector<std::string> sets = options.sets;
  for (const char* off : {"evaluate.every_steps=0", "evaluate.exact_match_problems=0", "evaluate.tokens_max=1",
                          "checkpoint.every_steps=0", "train.non_finite=\"stop\""})
    sets.emplace_back(off);
  sets.push_back(fmt::format("train.steps={}", kWarmUpSteps + options.steps));
  Config config = load_config(options.config_path, sets);
  if (config.layout.nodes != 1)
    throw Error("layout.nodes is {}: profile measures one process; add --set layout.nodes=1", config.layout.nodes);
  resolve_machine(config);
  return config;
}

}  // namespace

int profile(const ProfileOptions& options) {
  if (options.decode > 0) return profile_decoding(options);
  const Config config = measured_config(options);
  start_log("troupe", "", LogLevel::warning);
  WorldOptions world_options;
  if (!config.has_rollouts()) world_options.corpus = open_corpus(config);
  world_options.tasks = open_tasks(config);
  world_options.profiled = true;
  World world(config, world_options);
  world.recover({});
  Profile p{config, options.steps, 0, {}, {}, {}};
  std::int64_t begin_us = 0;
  Account before;
  world.run([&](const Report& report) {
    if (report.kind != "step") return;
    const auto step = nlohmann::json::parse(report.json).at("step").get<std::int64_t>();
    std::fprintf(stderr, "\rstep %lld of %d", static_cast<long long>(step) + 1, kWarmUpSteps + options.steps);
    if (step + 1 == kWarmUpSteps) {
      before = world.bill().account;
      world.clear_profile();
      begin_us = monotonic_us();
    }
    if (step + 1 < kWarmUpSteps + options.steps) return;
    p.wall_us = monotonic_us() - begin_us;
    p.account = world.bill().account;
    for (const auto& [cause, us] : before) p.account[cause] -= us;
    p.ops = world.op_profile();
    p.handlers = world.handler_profile();
  });
  std::fprintf(stderr, "\n");
  fmt::print("{}{}", head(p), tables(p));
  return 0;
}

}  // namespace troupe
