// Panes: what the full screen shows of a view, each as lines; all pure functions. The head stands above each; the others
// take turns below it.
#pragma once

#include <vector>

#include "launcher/inspect/events.h"
#include "launcher/inspect/line.h"
#include "launcher/inspect/view.h"

namespace troupe {

// What a pane is drawn for: the terminal's width, and whether it knows more letters than ASCII.
struct Paper {
  int columns = 80;
  bool utf8 = true;
};
using Lines = std::vector<Line>;

// Run, figures, verdict.
Lines head_of(const View& view, const Paper& paper);
// Nodes in a line each, at most so many: those that something is wrong with first.
Lines nodes_in_short(const View& view, const Paper& paper, std::size_t most);
Lines bill_in_short(const View& view, const Paper& paper);  // no line: there is no bill yet
Lines experts_in_short(const View& view, const Paper& paper, std::size_t most);

Lines nodes_pane(const View& view, const Paper& paper, std::uint32_t selected);
Lines bill_pane(const View& view, const Paper& paper);
Lines experts_pane(const View& view, const Paper& paper);
Lines why_pane(const View& view, const Paper& paper);
Lines actor_pane(const View& view, const Address& address, const std::vector<LastMessage>& messages,
                 const Paper& paper);
Lines help_pane(const View& view, const Paper& paper);

}  // namespace troupe
