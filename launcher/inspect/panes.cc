// The head and the short forms that stand above the table of actors.
#include "launcher/inspect/panes.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "launcher/inspect/bars.h"
#include "launcher/inspect/table.h"
#include "launcher/inspect/view_text.h"
#include "launcher/progress.h"

namespace troupe {

using nlohmann::json;

namespace {

constexpr std::int64_t kOldUs = 1'000'000;  // data of a node that should be younger

// Those that fit, in order, two blanks between them.
Line pieces_that_fit(const std::vector<Span>& pieces, int columns) {
  Line line;
  int left = columns;
  for (const Span& piece : pieces) {
    const int wide = columns_of(piece.text) + (line.empty() ? 0 : 2);
    if (piece.text.empty() || wide > left) continue;
    if (!line.empty()) line.push_back({"  "});
    line.push_back(piece);
    left -= wide;
  }
  return line;
}

// "loss 1.75", if the last step told one.
std::string figure(const View& view, const char* key, const char* format, double factor = 1) {
  const json& step = view.figures.step;
  if (!step.is_object() || !step.contains(key) || !step[key].is_number()) return "";
  return fmt::format(fmt::runtime(format), step[key].get<double>() * factor);
}

std::string time_left(const View& view) {
  const json& step = view.figures.step;
  if (view.options.source != RunSource::live || !step.is_object()) return "";
  const json seconds = step.value("step_seconds", json());
  const double left = seconds.is_number() ? static_cast<double>(view.steps - view.step) * seconds.get<double>() : 0;
  return left > 0 ? human_time(left) + " left" : "";
}

void add_wrapped(Lines& lines, const std::string& text, Tone tone, int columns, int indent) {
  for (std::string& part : wrapped(text, columns, indent)) lines.push_back({{std::move(part), tone}});
}

// Which nodes say nothing, and how old what they last said is.
std::string silent_text(const View& view) {
  std::string nodes;
  std::int64_t age_us = 0;
  for (const NodeView& node : view.nodes) {
    if (!is_silent(node)) continue;
    nodes += fmt::format("{}node {} is {}", nodes.empty() ? "" : ", ", node.node, node.life);
    age_us = std::max(age_us, node.age_us);
  }
  return nodes.empty() ? "" : fmt::format("data as of {} ago: {}", human_age(age_us), nodes);
}

std::string thread_text(const NodeView::Computing& thread) {
  constexpr const char* kWork[] = {"update", "backward", "forward", "weights", "evaluation"};
  if (!thread.is) return "idle";
  return fmt::format("{} {}", to_string(thread.actor), kWork[static_cast<std::size_t>(thread.key.segment_class)]);
}

// "3 running, 1 dead", of those from `first` on.
std::string lives_of(const std::vector<const NodeView*>& nodes, std::size_t first) {
  std::map<std::string, int> counts;
  for (std::size_t i = first; i < nodes.size(); ++i) ++counts[nodes[i]->life];
  std::string text;
  for (const auto& [life, count] : counts) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, life);
  return text;
}

Line node_in_short(const NodeView& node, const Paper& paper) {
  const bool old = node.age_us > kOldUs;
  std::string threads;
  for (const NodeView::Computing& thread : node.threads)
    threads += (threads.empty() ? "" : " | ") + thread_text(thread);
  const bool full = node.bytes_bound > 0 && node.bytes_peak > node.bytes_bound;
  const bool wide = paper.columns >= 110;
  Line line = pieces_that_fit(
      {{fmt::format("node {}", node.node), Tone::strong},
       {fitted(node.life, 7), tone_of_state(node.life)},
       {memory_text(node.bytes_peak, node.bytes_bound), full ? Tone::bad : Tone::plain},
       {fmt::format("as of {:>8}", human_age(node.age_us)), old ? Tone::warn : Tone::dim},
       {wide ? fmt::format("{:>2} segments ready, {:>2} pending", node.told.ready, node.told.pending) : ""}},
      paper.columns);
  line.push_back({"  threads: ", Tone::dim});
  line.push_back({threads, is_silent(node) ? Tone::dim : Tone::plain});
  return line;
}

}  // namespace

Lines head_of(const View& view, const Paper& paper) {
  const int columns = paper.columns;
  Lines lines;
  lines.push_back(pieces_that_fit({{view.name, Tone::strong},
                                   {fmt::format("step {} of {}", view.step, view.steps), Tone::strong},
                                   {view.attempt > 0 ? fmt::format("attempt {}", view.attempt) : ""},
                                   {figure(view, "cost_dollars", "${:.4f}")},
                                   {view.options.source == RunSource::simulated
                                        ? fmt::format("simulated, {:.6f} s", static_cast<double>(view.now_us) * 1e-6)
                                        : "",
                                    Tone::note},
                                   {view.paused ? "PAUSED" : "", Tone::warn},
                                   {view.options.run, Tone::dim}},
                                  columns));
  lines.push_back(pieces_that_fit({{figure(view, "loss", "loss {:.4f}")},
                                   {figure(view, "reward", "reward {:.3f}")},
                                   {figure(view, "tokens_per_second", "{:.0f} tokens/s")},
                                   {time_left(view)},
                                   {figure(view, "accuracy", "accuracy {:.1f} %", 100)},
                                   {figure(view, "mfu", "MFU {:.1f} %", 100)},
                                   {figure(view, "step_seconds", "{:.3f} s a step")}},
                                  columns));
  if (plain_text(lines.back()).empty()) lines.back() = {{"no step is done yet", Tone::dim}};
  const bool over = view.options.source == RunSource::over;
  // What is under way changes at every look; the pane of the chain has it.
  const bool works = view.healthy && view.why.kind == RootKind::working && !over;
  const std::string root = works ? view.why.root.substr(0, view.why.root.find(": ")) : view.why.root;
  const std::string word = over ? "over" : view.healthy ? "healthy" : "NOT HEALTHY";
  add_wrapped(lines, fmt::format("{}: {}", word, root), view.healthy ? Tone::good : Tone::bad, columns, 2);
  if (const std::string silent = silent_text(view); !over && !silent.empty())
    add_wrapped(lines, silent, Tone::warn, columns, 2);
  if (!view.tainted.empty()) add_wrapped(lines, "tainted: " + view.tainted, Tone::warn, columns, 2);
  return lines;
}

Lines nodes_in_short(const View& view, const Paper& paper, std::size_t most) {
  std::vector<const NodeView*> nodes;
  for (const NodeView& node : view.nodes) nodes.push_back(&node);
  std::stable_sort(nodes.begin(), nodes.end(),
                   [](const NodeView* a, const NodeView* b) { return is_silent(*a) > is_silent(*b); });
  const std::size_t shown = nodes.size() <= most ? nodes.size() : std::max<std::size_t>(most, 1) - 1;
  Lines lines;
  for (std::size_t i = 0; i < shown; ++i) lines.push_back(node_in_short(*nodes[i], paper));
  if (shown < nodes.size() && most > 0)
    lines.push_back({{(shown == 0 ? "nodes: " : "others: ") + lives_of(nodes, shown) + " (n)", Tone::dim}});
  return lines;
}

Lines bill_in_short(const View& view, const Paper& paper) {
  const auto parts = bill_parts(view);
  if (parts.empty()) return {};
  Line line{{"bill  ", Tone::strong}};
  for (Span& span : bill_bar(parts, paper.columns - 6)) line.push_back(std::move(span));
  return {line};
}

// As many layers a line as fit.
Lines experts_in_short(const View& view, const Paper& paper, std::size_t most) {
  constexpr int kBarMost = 32;
  Lines lines;
  if (view.figures.experts.empty() || most == 0) return lines;
  const LiveFigures::ExpertRows& last = view.figures.experts.back();
  int left = 0;
  for (std::size_t i = 0; i < std::min(last.rows.size(), last.layers.size()); ++i) {
    const Load load = load_of(last.rows[i]);
    const std::string name = fmt::format("layer {} ", last.layers[i]),
                      bar = load_bar(last.rows[i], kBarMost, paper.utf8), worst = fmt::format(" {:.2f}  ", load.worst);
    const int wide = columns_of(name) + columns_of(bar) + columns_of(worst);
    if (wide > left && lines.size() == most) {
      lines.back().push_back({"... (e)", Tone::dim});
      break;
    }
    if (wide > left) {
      lines.push_back({{lines.empty() ? "load  " : "      ", Tone::strong}});
      left = paper.columns - 6 - 7;
    }
    left -= wide;
    lines.back().push_back({name, Tone::dim});
    lines.back().push_back({bar, Tone::note});
    lines.back().push_back({worst, load.worst >= 2 ? Tone::warn : Tone::plain});
  }
  return lines;
}

}  // namespace troupe
