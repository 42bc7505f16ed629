// The panes that take the place of the table of actors: nodes, bill, experts, the chain of waits.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "launcher/inspect/bars.h"
#include "launcher/inspect/panes.h"
#include "launcher/inspect/table.h"
#include "launcher/inspect/view_text.h"

namespace troupe {

namespace {

void add_wrapped(Lines& lines, const std::string& text, Tone tone, const Paper& paper, int indent) {
  for (std::string& part : wrapped(text, paper.columns, indent)) lines.push_back({{std::move(part), tone}});
}

std::string work_of(const NodeView::Computing& thread) {
  constexpr const char* kWork[] = {"ends step", "backward of step", "forward of step", "weight gradients of step",
                                   "evaluates, number"};
  const SegmentKey& key = thread.key;
  return fmt::format("{}: {} {} microbatch {} layer {}, {}", to_string(thread.actor),
                     kWork[static_cast<std::size_t>(key.segment_class)], key.step, key.microbatch, key.layer,
                     human_age(thread.age_us));
}

void add_node(Lines& lines, const View& view, const NodeView& node, const Paper& paper, bool selected) {
  Line head{
      {selected ? ">" : " ", Tone::strong},
      {fmt::format("node {}  ", node.node), Tone::strong},
      {node.life, tone_of_state(node.life)},
      {fmt::format("  process {}, incarnation {}, as of {} ago", node.pid, node.incarnation, human_age(node.age_us))}};
  for (Span& span : head) span.filled = selected;
  lines.push_back(std::move(head));
  const BoardNode& told = node.told;
  add_wrapped(lines,
              fmt::format("    memory {} at its peak, {:.1f} MiB now; {} segments ready, {} pending; {} disk jobs",
                          memory_text(node.bytes_peak, node.bytes_bound), static_cast<double>(node.bytes) / 1048576,
                          told.ready, told.pending, told.disk_jobs),
              Tone::plain, paper, 6);
  for (std::size_t i = 0; i < node.threads.size(); ++i) {
    const NodeView::Computing& thread = node.threads[i];
    lines.push_back({{fmt::format("    thread {}  ", i), Tone::dim},
                     {thread.is ? work_of(thread) : "idle", thread.is ? Tone::good : Tone::dim}});
  }
  for (std::size_t i = 0; i < std::min<std::size_t>(told.peers_count, kBoardPeersMax); ++i) {
    const BoardPeer& peer = told.peers[i];
    const bool missing = peer.missing_since_us > 0;
    std::string text =
        fmt::format("    heard node {} {} ago, {} frames unacknowledged", peer.node,
                    human_age(std::max<std::int64_t>(0, view.now_us - peer.heard_us)), peer.unacknowledged);
    if (missing)
      text += fmt::format(", one is missing for {}",
                          human_age(std::max<std::int64_t>(0, view.now_us - peer.missing_since_us)));
    add_wrapped(lines, text, missing ? Tone::warn : Tone::plain, paper, 6);
  }
}

}  // namespace

Lines nodes_pane(const View& view, const Paper& paper, std::uint32_t selected) {
  Lines lines;
  for (const NodeView& node : view.nodes) add_node(lines, view, node, paper, node.node == selected);
  if (lines.empty()) lines.push_back({{"no process of this run has started", Tone::dim}});
  return lines;
}

Lines bill_pane(const View& view, const Paper& paper) {
  const auto parts = bill_parts(view);
  if (parts.empty()) return {{{"no bill yet: it begins with the first step", Tone::dim}}};
  double seconds = 0;
  for (const BillPart& part : parts) seconds += part.seconds;
  std::string head = fmt::format("{:.1f} thread seconds", seconds);
  const auto& bill = view.figures.bill;
  if (bill.is_object()) head += fmt::format(", ${:.4f}", bill.value("cost_dollars", 0.0));
  Lines lines{{{head, Tone::strong}}, bill_bar(parts, paper.columns), {}};
  for (std::size_t i = 0; i < kBins; ++i) {
    const auto bin = static_cast<Bin>(i);
    const auto part =
        std::find_if(parts.begin(), parts.end(), [&](const BillPart& p) { return p.bin == to_string(bin); });
    const bool none = part == parts.end();
    const double share = none ? 0 : part->share;
    std::string text = meaning(bin);
    if (!none && !part->holder.empty()) text += " (" + part->holder + ")";
    lines.push_back(
        {{none ? " " : "#", none ? Tone::dim : part->tone, !none},
         {fmt::format(" {:<12} {:>5.1f} % {:>8.1f} s  ", to_string(bin), 100 * share, none ? 0 : part->seconds),
          none ? Tone::dim : Tone::plain},
         {text, Tone::dim}});
  }
  return lines;
}

// Beside the last step's load: how far the busiest was above the mean, over the last steps.
Lines experts_pane(const View& view, const Paper& paper) {
  if (view.figures.experts.empty())
    return {{{"no load yet: it comes with the first step, where a model has experts", Tone::dim}}};
  const LiveFigures::ExpertRows& last = view.figures.experts.back();
  const int bar_columns = std::clamp(paper.columns - 60, 8, 128);
  Lines lines{{{fmt::format("rows of each expert in step {}; the worst of {} steps against the mean", last.step,
                            view.figures.experts.size()),
                Tone::strong}}};
  for (std::size_t i = 0; i < std::min(last.rows.size(), last.layers.size()); ++i) {
    const Load load = load_of(last.rows[i]);
    std::vector<std::int64_t> past;  // hundredths above none
    for (const auto& step : view.figures.experts)
      if (step.layers == last.layers) past.push_back(std::llround(100 * load_of(step.rows[i]).worst));
    lines.push_back({{fmt::format("layer {:<3} ", last.layers[i]), Tone::strong},
                     {load_bar(last.rows[i], bar_columns, paper.utf8), Tone::note},
                     {fmt::format("  worst {:.2f} (expert {})", load.worst, load.busiest),
                      load.worst >= 2 ? Tone::warn : Tone::plain},
                     {fmt::format("  {} idle  ", load.idle), load.idle > 0 ? Tone::warn : Tone::dim},
                     {load_bar(past, 24, paper.utf8), Tone::dim}});
  }
  return lines;
}

Lines why_pane(const View& view, const Paper& paper) {
  const bool bad = !view.healthy;
  Lines lines{{{"who waits for whom, from the conductor to the root", Tone::strong}}};
  for (std::size_t i = 0; i < view.why.links.size(); ++i)
    add_wrapped(lines, fmt::format("{:>2}. {}", i + 1, view.why.links[i]), Tone::plain, paper, 4);
  add_wrapped(lines, "root: " + view.why.root, bad ? Tone::bad : Tone::good, paper, 6);
  return lines;
}

}  // namespace troupe
