#include "launcher/inspect/view_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "launcher/progress.h"

namespace troupe {

using nlohmann::json;

namespace {

double mib(std::uint64_t bytes) { return static_cast<double>(bytes) / 1048576; }

std::string percent(double share) { return fmt::format("{:.0f} %", 100 * share); }

// " loss 1.75", if the last step told one.
std::string figure(const json& step, const char* key, const char* format, const char* unit = "") {
  if (!step.is_object() || !step.contains(key) || !step[key].is_number()) return "";
  return fmt::format(fmt::runtime(format), step[key].get<double>()) + unit;
}

std::string run_line(const View& view) {
  std::string line = fmt::format("{}  {}  step {} of {}", view.name, view.options.run, view.step, view.steps);
  const json& step = view.figures.step;
  line += figure(step, "loss", "  loss {:.4f}");
  line += figure(step, "reward", "  reward {:.3f}");
  line += figure(step, "tokens_per_second", "  {:.0f}", " tokens/s");
  line += figure(step, "cost_dollars", "  ${:.4f}");
  if (step.is_object() && step.value("step_seconds", json()).is_number()) {
    const double left = static_cast<double>(view.steps - view.step) * step["step_seconds"].get<double>();
    if (left > 0 && view.options.source == RunSource::live) line += fmt::format("  {} left", human_time(left));
  }
  return line;
}

std::string verdict_line(const View& view) {
  const char* word = view.options.source == RunSource::over ? "over" : view.healthy ? "healthy" : "NOT HEALTHY";
  return fmt::format("{}: {}", word, view.why.root);
}

std::string node_line(const NodeView& node) {
  std::string line = fmt::format("node {}  {}, process {}", node.node, node.life, node.pid);
  line += fmt::format("  {} ready, {} pending", node.told.ready, node.told.pending);
  if (node.told.disk_jobs > 0) line += fmt::format(", {} disk jobs", node.told.disk_jobs);
  line += fmt::format("  {:.1f} of {:.1f} MiB", mib(node.bytes_peak), mib(node.bytes_bound));
  line += fmt::format("  as of {} ago", human_age(node.age_us));
  for (std::size_t i = 0; i < node.threads.size(); ++i) {
    const NodeView::Computing& c = node.threads[i];
    line += c.is ? fmt::format("\n  thread {}: {}, {}", i, to_string(c.actor), human_age(c.age_us))
                 : fmt::format("\n  thread {}: idle", i);
  }
  return line;
}

std::string bill_line(const View& view) {
  const json& bill = view.figures.bill;
  if (!bill.is_object()) return "";
  const double total = bill.at("total_thread_seconds").get<double>();
  if (total <= 0) return "";
  std::vector<std::pair<double, std::string>> bins;
  for (const auto& [bin, seconds] : bill.at("thread_seconds").items())
    if (seconds.get<double>() / total >= 0.005) bins.emplace_back(seconds.get<double>() / total, bin);
  std::sort(bins.rbegin(), bins.rend());
  std::string line = fmt::format("bill  ${:.4f}:", bill.at("cost_dollars").get<double>());
  for (const auto& [share, bin] : bins) line += fmt::format("  {} {}", bin, percent(share));
  return line;
}

// A layer's experts, the busiest the tallest.
std::string load_bar(const std::vector<std::int64_t>& rows) {
  const char* const kBars[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  const std::int64_t most = std::max<std::int64_t>(1, *std::max_element(rows.begin(), rows.end()));
  std::string bar;
  for (const std::int64_t n : rows)
    bar += kBars[static_cast<std::size_t>(std::lround(8.0 * static_cast<double>(n) / static_cast<double>(most)))];
  return bar;
}

void add_experts(const View& view, std::vector<std::string>& lines) {
  constexpr std::size_t kLayersMax = 8, kExpertsMax = 100;
  if (view.figures.experts.empty()) return;
  const LiveFigures::ExpertRows& last = view.figures.experts.back();
  for (std::size_t i = 0; i < std::min(last.rows.size(), kLayersMax); ++i) {
    std::vector<std::int64_t> rows = last.rows[i];
    if (rows.empty()) continue;
    double mean = 0;
    for (const std::int64_t n : rows) mean += static_cast<double>(n) / static_cast<double>(rows.size());
    const double most = static_cast<double>(*std::max_element(rows.begin(), rows.end()));
    rows.resize(std::min(rows.size(), kExpertsMax));
    lines.push_back(fmt::format("experts of layer {}  |{}|  busiest {:.2f} of the mean", last.layers[i], load_bar(rows),
                                mean > 0 ? most / mean : 0));
  }
  if (last.rows.size() > kLayersMax)
    lines.push_back(fmt::format("  and {} layers more", last.rows.size() - kLayersMax));
}

void add_split(std::vector<std::string>& lines, const std::string& text) {
  std::size_t begin = 0;
  for (std::size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', begin)) {
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  lines.push_back(text.substr(begin));
}

std::string credits_text(const Credits& credits) {
  return credits.of == 0 ? "-" : fmt::format("{}/{}", credits.free, credits.of);
}

// Credits and traffic, by who is sent to.
void add_sent(const View& view, const ActorView& a, std::vector<std::string>& lines) {
  std::string credits, traffic;
  for (const Credits& c : a.channels)
    credits += fmt::format("{} {} {} of {} free", credits.empty() ? "credits:" : ",", to_string(c.to), c.free, c.of);
  for (const EdgeView& e : view.edges)
    if (e.from == a.address && e.messages_per_second > 0)
      traffic += fmt::format("{} {} {:.0f} messages/s {:.2f} MiB/s", traffic.empty() ? "sends:" : ",", to_string(e.to),
                             e.messages_per_second, e.bytes_per_second / 1048576);
  if (!credits.empty()) lines.push_back(credits);
  if (!traffic.empty()) lines.push_back(traffic);
}

// Those for one thing from one holder together, told by the oldest.
void add_waits(const ActorView& a, std::vector<std::string>& lines) {
  std::vector<std::pair<const ActorView::Waiting*, int>> groups;
  for (const ActorView::Waiting& wait : a.waits) {
    const auto same = std::find_if(groups.begin(), groups.end(), [&](const auto& group) {
      return group.first->what == wait.what && group.first->holder == wait.holder;
    });
    if (same == groups.end())
      groups.emplace_back(&wait, 1);
    else
      ++same->second;
  }
  for (const auto& [wait, count] : groups)
    lines.push_back(fmt::format("waits for {}, held by {}, for {}: {}{}", wait->what,
                                wait->holder == a.address ? "its own" : to_string(wait->holder),
                                human_age(wait->age_us), wait->item,
                                count > 1 ? fmt::format(", and {} more", count - 1) : ""));
  if (a.waits_more) lines.push_back("and for more than is told here");
}

}  // namespace

std::string human_age(std::int64_t us) {
  if (us < 1000) return fmt::format("{} us", us);
  if (us < 1'000'000) return fmt::format("{:.1f} ms", static_cast<double>(us) * 1e-3);
  if (us < 100'000'000) return fmt::format("{:.1f} s", static_cast<double>(us) * 1e-6);
  return human_time(static_cast<double>(us) * 1e-6);
}

std::vector<std::string> head_lines(const View& view) {
  std::vector<std::string> lines{run_line(view), verdict_line(view)};
  if (!view.tainted.empty()) lines.push_back("tainted: " + view.tainted);
  for (const NodeView& node : view.nodes) add_split(lines, node_line(node));
  if (const std::string bill = bill_line(view); !bill.empty()) lines.push_back(bill);
  add_experts(view, lines);
  return lines;
}

std::string actors_title() {
  return fmt::format("{:<18} {:>4} {:<9} {:>5} {:>8} {:>7} {:>5} {:>5} {:>7} {:>7} {:>15}  {}", "ACTOR", "NODE",
                     "STATE", "QUEUE", "OLDEST", "MSG/S", "BUSY", "HANDL", "VERSION", "CREDITS", "MEMORY MiB", "DOES");
}

std::string actor_line(const ActorView& a) {
  const std::string memory =
      a.bytes_bound > 0 ? fmt::format("{:.1f} of {:.1f}", mib(a.bytes), mib(a.bytes_bound)) : "-";
  return fmt::format("{:<18} {:>4} {:<9} {:>5} {:>8} {:>7.0f} {:>5} {:>5} {:>7} {:>7} {:>15}  {}{}",
                     to_string(a.address), a.node, a.state, a.queue, a.queue > 0 ? human_age(a.oldest_age_us) : "-",
                     a.messages_per_second, percent(a.busy), percent(a.handling), a.version, credits_text(a.credits),
                     memory, a.doing, a.doing.empty() ? "" : ", " + human_age(a.doing_age_us));
}

std::vector<std::string> why_lines(const View& view) {
  std::vector<std::string> lines = view.why.links;
  lines.push_back("root: " + view.why.root);
  return lines;
}

std::vector<std::string> actor_lines(const View& view, const ActorView& a) {
  std::vector<std::string> lines{
      fmt::format("{} on node {}: {}", to_string(a.address), a.node, a.state),
      a.doing.empty() ? "does nothing" : fmt::format("{}, for {}", a.doing, human_age(a.doing_age_us)),
      fmt::format("weights version {}, attempt {}; {:.1f} MiB allocated, {:.1f} planned", a.version, a.attempt,
                  mib(a.bytes), mib(a.bytes_bound)),
      fmt::format("{} messages handled, {:.0f} a second; {} in its mail{}", a.handled, a.messages_per_second, a.queue,
                  a.queue > 0 ? fmt::format(", the oldest for {}", human_age(a.oldest_age_us)) : ""),
      fmt::format("its segments ran {} of the time, its handlers {}; {} segments are under way", percent(a.busy),
                  percent(a.handling), a.segments)};
  add_sent(view, a, lines);
  add_waits(a, lines);
  return lines;
}

}  // namespace troupe
