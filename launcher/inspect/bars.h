// Bars made of letters: the bill of a run as one bar of its bins, the experts' load as a row of heights.
#pragma once

#include <string>
#include <vector>

#include "launcher/inspect/line.h"
#include "launcher/inspect/view.h"

namespace troupe {

struct BillPart {
  std::string bin;
  double share = 0, seconds = 0;  // of threads
  Tone tone = Tone::plain;
  std::string holder;  // who was waited for most; empty: nobody
};
// The largest first, of the run's last bill; before there is one, of what the nodes' boards say. Empty: of neither.
std::vector<BillPart> bill_parts(const View& view);
// So many columns wide; a part's name and share stand in it as far as there is room.
Line bill_bar(const std::vector<BillPart>& parts, int columns);

// Heights against the highest, at most so many columns: of neighbours that share one, the highest is shown.
std::string load_bar(const std::vector<std::int64_t>& rows, int columns, bool utf8);
// The busiest's rows, of the mean.
struct Load {
  double worst = 0, mean = 0;
  std::size_t busiest = 0, idle = 0;  // an expert; how many had no rows
};
Load load_of(const std::vector<std::int64_t>& rows);

}  // namespace troupe
