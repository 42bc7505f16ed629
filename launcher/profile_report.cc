#include "launcher/profile_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace troupe {

namespace {

constexpr std::size_t kOpsShown = 40, kHandlersShown = 15;

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

}  // namespace

std::string shape_of(const OpKey& key, const OpTime& time) {
  const std::int64_t rows = time.rows / std::max<std::int64_t>(1, time.count);
  if (key.depth == 0) return fmt::format("{} x {}", rows, key.cols);
  if (key.phase == SegmentClass::weight_gradient) return fmt::format("{} x [{}] x {}", key.depth, rows, key.cols);
  return fmt::format("{} x [{}] x {}", rows, key.depth, key.cols);
}

std::string tables(const Profile& p) { return threads_table(p) + ops_table(p) + handlers_table(p); }

}  // namespace troupe
