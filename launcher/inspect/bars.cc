#include "launcher/inspect/bars.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace troupe {

using nlohmann::json;

namespace {

// By rank, but what a person pays for comes in the same tone always.
Tone tone_of(const std::string& bin, std::size_t rank) {
  constexpr std::array kTones = {Tone::note, Tone::other, Tone::warn, Tone::more};
  return bin == to_string(Bin::useful) ? Tone::good : kTones[rank % kTones.size()];
}

// As much of it as fits.
std::string label(const BillPart& part, int columns) {
  const std::string share = fmt::format("{:.0f} %", 100 * part.share);
  for (const std::string& text : {fmt::format(" {} {}", part.bin, share), fmt::format("{} {}", part.bin, share)})
    if (columns_of(text) <= columns) return fitted(text, columns);
  return fitted(part.bin, columns);
}

}  // namespace

std::vector<BillPart> bill_parts(const View& view) {
  std::vector<BillPart> parts;
  const json& bill = view.figures.bill;
  double total = 0;
  for (std::size_t i = 0; i < kBins; ++i) {
    BillPart part;
    part.bin = to_string(static_cast<Bin>(i));
    if (bill.is_object()) {
      part.seconds = bill.at("thread_seconds").value(part.bin, 0.0);
      if (bill.contains("worst") && bill["worst"].contains(part.bin))
        part.holder = bill["worst"][part.bin].value("holder", "");
    } else {
      for (const NodeView& node : view.nodes) part.seconds += static_cast<double>(node.told.bill_us[i]) * 1e-6;
    }
    total += part.seconds;
    if (part.seconds > 0) parts.push_back(std::move(part));
  }
  std::stable_sort(parts.begin(), parts.end(),
                   [](const BillPart& a, const BillPart& b) { return a.seconds > b.seconds; });
  for (std::size_t i = 0; i < parts.size(); ++i) {
    parts[i].share = parts[i].seconds / total;
    parts[i].tone = tone_of(parts[i].bin, i);
  }
  return parts;
}

// Parts end where their sum does, so that nothing is lost by rounding; a blank column parts them where there is room.
Line bill_bar(const std::vector<BillPart>& parts, int columns) {
  Line line;
  double sum = 0;
  int at = 0;
  for (const BillPart& part : parts) {
    sum += part.share;
    const int end = std::min(columns, static_cast<int>(std::lround(sum * columns)));
    const int wide = end - at;
    if (wide <= 0) continue;
    const bool gap = wide > 1 && end < columns;
    line.push_back({label(part, gap ? wide - 1 : wide), part.tone, true});
    if (gap) line.push_back({" "});
    at = end;
  }
  return line;
}

std::string load_bar(const std::vector<std::int64_t>& rows, int columns, bool utf8) {
  constexpr std::array<const char*, 9> kBlocks = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  constexpr std::array<const char*, 9> kLetters = {" ", ".", ":", "-", "=", "+", "*", "%", "#"};
  if (rows.empty() || columns <= 0) return "";
  const auto count = rows.size(), shown = std::min(count, static_cast<std::size_t>(columns));
  const std::int64_t most = std::max<std::int64_t>(1, *std::max_element(rows.begin(), rows.end()));
  std::string bar;
  for (std::size_t i = 0; i < shown; ++i) {
    const auto begin = rows.begin() + static_cast<std::ptrdiff_t>(i * count / shown);
    const auto end = rows.begin() + static_cast<std::ptrdiff_t>((i + 1) * count / shown);
    const double height = static_cast<double>(*std::max_element(begin, end)) / static_cast<double>(most);
    const auto level = static_cast<std::size_t>(std::ceil(8 * std::clamp(height, 0.0, 1.0)));
    bar += utf8 ? kBlocks[level] : kLetters[level];
  }
  return bar;
}

Load load_of(const std::vector<std::int64_t>& rows) {
  Load load;
  if (rows.empty()) return load;
  for (const std::int64_t n : rows) {
    load.mean += static_cast<double>(n) / static_cast<double>(rows.size());
    load.idle += n == 0 ? 1 : 0;
  }
  load.busiest = static_cast<std::size_t>(std::max_element(rows.begin(), rows.end()) - rows.begin());
  if (load.mean > 0) load.worst = static_cast<double>(rows[load.busiest]) / load.mean;
  return load;
}

}  // namespace troupe
