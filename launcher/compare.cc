// `troupe compare RUN RUN`: the table, and the picture.
#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "kernels/base/error.h"
#include "launcher/bill_svg.h"
#include "launcher/compare_runs.h"
#include "launcher/run_charts.h"
#include "launcher/svg_page.h"
#include "launcher/svg_text.h"
#include "launcher/tools.h"

namespace troupe {

namespace {

constexpr std::size_t kWhat = 26, kValue = 27, kBetween = 2;  // columns: 26 + 2 x 27 = 80

// Its beginning and its end, if it is too long.
std::string cut(const std::string& text, std::size_t most) {
  if (letters(text) <= most || text.size() <= most) return text;
  const std::size_t tail = (most - 3) / 2, head = most - 3 - tail;
  return text.substr(0, head) + "..." + text.substr(text.size() - tail);
}

std::string row(const std::string& what, const std::vector<std::string>& values) {
  std::string line = fmt::format("{:<{}}", cut(what, kWhat - kBetween), kWhat);
  for (const std::string& value : values) line += fmt::format("{:<{}}", cut(value, kValue - kBetween), kValue);
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

std::string differences_text(const std::vector<ConfigDifference>& differences, bool numbers) {
  std::string text;
  for (const ConfigDifference& difference : differences) {
    if (difference.numbers != numbers) continue;
    std::vector<std::string> values;
    for (const std::string& value : difference.values) values.push_back(value.empty() ? "absent" : value);
    text += row("  " + difference.key, values);
  }
  return text;
}

std::string configuration_text(const std::vector<ComparedRun>& runs) {
  std::vector<Config> configs;
  for (const ComparedRun& run : runs) configs.push_back(run.config);
  const auto differences = config_differences(configs);
  if (differences.empty()) return "\nThe configurations are the same.\n";
  const std::string with = differences_text(differences, true), without = differences_text(differences, false);
  std::string text;
  if (!with.empty()) text += "\nWhat differs in the configurations, and changes the numbers\n" + with;
  if (!without.empty()) text += "\nWhat differs in the configurations, and changes no number\n" + without;
  return text;
}

std::string weights_text(const ComparedRun& first, const ComparedRun& other) {
  if (first.version < 0 || other.version < 0)
    return fmt::format("weights: {} has no checkpoint to compare", first.version < 0 ? first.name : other.name);
  if (first.digest == other.digest)
    return fmt::format("weights: the same, bit for bit, after {} steps ({})", first.version,
                       first.digest.substr(0, 16));
  if (first.version != other.version)
    return fmt::format("weights: of different steps, {} and {}", first.version, other.version);
  return fmt::format("weights: not the same after {} steps ({} and {})", first.version, first.digest.substr(0, 12),
                     other.digest.substr(0, 12));
}

std::string losses_text(const ComparedRun& first, const ComparedRun& other) {
  const std::size_t common = common_steps(first.metrics, other.metrics);
  if (common == 0) return "losses: they have no step in common";
  const auto difference = first_loss_difference(first.metrics, other.metrics);
  if (!difference) return fmt::format("losses: the same bits in all {} steps that both have", common);
  return fmt::format("losses: differ first at step {:g}: {} and {}", difference->step, difference->first,
                     difference->second);
}

std::string picture(const std::vector<ComparedRun>& runs) {
  std::vector<std::pair<std::string, RunMetrics>> metrics;
  std::vector<BillBar> bars;
  std::vector<std::string> lines;
  for (const ComparedRun& run : runs) {
    metrics.emplace_back(run.name, run.metrics);
    if (run.metrics.bill.is_object()) bars.push_back({run.name, run.metrics.bill});
    if (&run != &runs.front()) {
      const std::string beside = runs.size() > 2 ? fmt::format("{} beside {}: ", run.name, runs.front().name) : "";
      lines.push_back(beside + weights_text(runs.front(), run) + "; " + losses_text(runs.front(), run));
    }
  }
  std::string title = runs.front().name;
  for (std::size_t r = 1; r < runs.size(); ++r) title += " and " + runs[r].name;
  std::vector<PagePart> parts{{svg_charts(compared_charts(metrics))}};
  if (!bars.empty()) parts.push_back({bill_svg(bars)});
  return svg_page(title, lines, parts);
}

}  // namespace

std::string compared_table(const std::vector<ComparedRun>& runs) {
  std::vector<std::string> names;
  for (const ComparedRun& run : runs) names.push_back(run.name);
  std::string text = row("", names) + configuration_text(runs) + "\nWhat came of them\n";
  for (const ComparedLine& line : compared_lines(runs)) text += row("  " + line.what, line.values);
  text += "\nBit for bit\n";
  for (std::size_t r = 1; r < runs.size(); ++r) {
    if (runs.size() > 2) text += fmt::format("  {} beside {}\n", names[r], names[0]);
    text += "  " + weights_text(runs[0], runs[r]) + "\n  " + losses_text(runs[0], runs[r]) + "\n";
  }
  return text;
}

int compare(const CompareOptions& options) {
  if (options.runs.size() < 2) throw Error("compare needs two runs or more; {} is one", options.runs.front());
  std::vector<ComparedRun> runs;
  for (const std::string& path : options.runs) {
    for (const ComparedRun& other : runs) {
      std::error_code none;
      if (std::filesystem::equivalent(other.name, path, none)) throw Error("{} is named twice: name another run", path);
    }
    runs.push_back(read_compared_run(path));
  }
  fmt::print("{}", compared_table(runs));
  if (options.out.empty()) return 0;
  std::ofstream file(options.out, std::ios::trunc);
  file << picture(runs);
  file.flush();
  if (!file) throw Error("{}: can't be written; choose another --out", options.out);
  return 0;
}

}  // namespace troupe
