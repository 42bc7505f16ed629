#include "launcher/profile.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "launcher/config.h"
#include "launcher/world.h"

namespace troupe {

namespace {

constexpr int kWarmUpSteps = 3;
constexpr std::size_t kOpsShown = 40, kHandlersShown = 15;

// Everything that is told, for `steps` steps of `wall_us` together.
struct Profile {
  const Config& config;
  int steps;
  std::int64_t wall_us = 0;
  Account account;
  OpProfile ops;
  HandlerProfile handlers;

  double thread_us() const { return static_cast<double>(wall_us) * config.device.threads; }
  double ms_a_step(double us) const { return us / 1000 / steps; }
  double peak_gflops() const {
    return config.train.dtype == "bfloat16" ? config.hardware.bfloat16_gflops : config.hardware.float32_gflops;
  }
};

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

std::string threads_table(const Profile& p) {
  std::string text = fmt::format("\n{:<34}{:>12}{:>9}\n", "compute threads", "ms a step", "share");
  for (std::size_t i = 0; i < kBins; ++i) {
    const auto bin = static_cast<Bin>(i);
    const auto us = static_cast<double>(total_us(p.account, bin));
    if (us == 0) continue;
    text += fmt::format("  {:<32}{:>12.2f}{:>8.1f} %   {}\n", to_string(bin), p.ms_a_step(us), 100 * us / p.thread_us(),
                        meaning(bin));
  }
  return text;
}

std::string shape_of(const OpKey& key, const OpTime& time) {
  const std::int64_t rows = time.rows / std::max<std::int64_t>(1, time.count);
  if (key.depth == 0) return fmt::format("{} x {}", rows, key.cols);
  if (key.phase == SegmentClass::weight_gradient) return fmt::format("{} x [{}] x {}", key.depth, rows, key.cols);
  return fmt::format("{} x [{}] x {}", rows, key.depth, key.cols);
}

std::string ops_table(const Profile& p) {
  std::vector<std::pair<OpKey, OpTime>> all(p.ops.times().begin(), p.ops.times().end());
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.second.ns > b.second.ns; });
  std::string text = fmt::format("\n{:<19}{:<10}{:<19}{:>8}{:>11}{:>9}{:>9}{:>8}{:>8}\n", "op", "phase",
                                 "rows x [sum] x cols", "a step", "ms a step", "share", "GFLOP/s", "of peak", "GB/s");
  double others_us = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto& [key, time] = all[i];
    const double us = static_cast<double>(time.ns) * 1e-3, ns = static_cast<double>(std::max<std::int64_t>(1, time.ns));
    if (i >= kOpsShown) {
      others_us += us;
      continue;
    }
    text += fmt::format("{:<19}{:<10}{:<19}{:>8.1f}{:>11.2f}{:>7.1f} %{:>9.1f}{:>6.0f} %{:>8.1f}\n", op_name(key.kind),
                        to_string(key.phase), shape_of(key, time), static_cast<double>(time.count) / p.steps,
                        p.ms_a_step(us), 100 * us / p.thread_us(), time.cost.flops / ns,
                        100 * time.cost.flops / ns / p.peak_gflops(), time.cost.bytes / ns);
  }
  if (others_us > 0)
    text += fmt::format("{:<56}{:>11.2f}{:>7.1f} %\n", fmt::format("{} others", all.size() - kOpsShown),
                        p.ms_a_step(others_us), 100 * others_us / p.thread_us());
  return text;
}

std::string handlers_table(const Profile& p) {
  std::vector<std::pair<std::pair<Role, std::string>, HandlerTime>> all(p.handlers.times.begin(),
                                                                        p.handlers.times.end());
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.second.ns > b.second.ns; });
  std::string text = fmt::format("\n{:<15}{:<23}{:>9}{:>11}{:>12}{:>9}\n", "actor", "message", "a step", "us each",
                                 "ms a step", "of loop");
  HandlerTime total;
  const auto row = [&](const std::string& actor, const std::string& message, const HandlerTime& time) {
    const double us = static_cast<double>(time.ns) * 1e-3;
    return fmt::format("{:<15}{:<23}{:>9.1f}{:>11.2f}{:>12.3f}{:>7.1f} %\n", actor, message,
                       static_cast<double>(time.count) / p.steps,
                       us / static_cast<double>(std::max<std::int64_t>(1, time.count)), p.ms_a_step(us),
                       100 * us / static_cast<double>(p.wall_us));
  };
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto& [key, time] = all[i];
    total.count += time.count;
    total.ns += time.ns;
    const std::string role = to_string(Address{key.first, 0});
    if (i < kHandlersShown) text += row(role.substr(0, role.rfind(' ')), key.second, time);
  }
  return text + row("all", "", total);
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
  const Config config = measured_config(options);
  start_log("troupe", "", LogLevel::warning);
  WorldOptions world_options;
  world_options.corpus = open_corpus(config);
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
  fmt::print("{}{}{}{}", head(p), threads_table(p), ops_table(p), handlers_table(p));
  return 0;
}

}  // namespace troupe
