#include "launcher/inspect/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "launcher/inspect/view_text.h"

namespace troupe {

namespace {

constexpr int kDoesMin = 18;     // columns, or it is left out
constexpr int kDoesMore = 16;    // more columns that it wants before the less important ones come in
constexpr int kNameMin = 14;     // "expert_shard 0"
constexpr int kMarkColumns = 1;  // of the row that is selected

std::string count_text(double value) {
  return value < 99'999.5 ? fmt::format("{:.0f}", value) : fmt::format("{:.0f}k", value * 1e-3);
}

// What it does, without the word that its state says already.
std::string without_state(const ActorView& actor) {
  for (const std::string word : {"handles ", "waits for "})
    if (actor.doing.starts_with(word)) return actor.doing.substr(word.size());
  return actor.doing;
}

}  // namespace

Tone tone_of_state(const std::string& state) {
  if (state == "stuck" || state == "dead") return Tone::bad;
  if (state == "stopped" || state == "silent") return Tone::warn;
  if (state == "computing" || state == "running") return Tone::good;
  if (state == "handling") return Tone::note;
  return state == "idle" || state == "ended" ? Tone::dim : Tone::plain;
}

bool is_silent(const NodeView& node) { return node.life != "running" && node.life != "ended"; }

std::string memory_text(std::uint64_t bytes, std::uint64_t bound) {
  const bool big = std::max(bytes, bound) >= std::uint64_t{1} << 30;
  const auto number = [&](std::uint64_t count) {
    const double value = static_cast<double>(count) / (big ? 1 << 30 : 1 << 20);
    return value < 99.95 ? fmt::format("{:.1f}", value) : fmt::format("{:.0f}", value);
  };
  const std::string name = big ? "GiB" : "MiB";
  return bound == 0 ? number(bytes) + " " + name : fmt::format("{}/{} {}", number(bytes), number(bound), name);
}

ActorsTable::ActorsTable(const View& view, int columns, ActorOrder order, bool reversed, bool utf8)
    : order_(order), reversed_(reversed), utf8_(utf8) {
  int name_columns = kNameMin;
  for (const ActorView& actor : view.actors)
    name_columns = std::max(name_columns, columns_of(to_string(actor.address)));
  for (const NodeView& node : view.nodes)
    if (is_silent(node)) silent_.insert(node.node);
  choose(columns, name_columns);
}

// The first ones that fit, as they are ranked; shown in the order of the enumeration.
void ActorsTable::choose(int columns, int name_columns) {
  using Order = ActorOrder;
  const std::array<Column, 11> ranked = {Column{Cell::actor, "ACTOR", name_columns, false, Order::actor},
                                         {Cell::state, "STATE", 9, false, {}},
                                         {Cell::queue, "QUEUE", 5, true, Order::queue},
                                         {Cell::oldest, "OLDEST", 8, true, Order::oldest},
                                         {Cell::does, "FOR  DOES", kDoesMin, false, Order::waits},
                                         {Cell::rate, "MSG/S", 6, true, Order::messages},
                                         {Cell::credits, "CREDITS", 7, true, {}},
                                         {Cell::split, "BUSY/H/WAIT%", 12, true, Order::busy},
                                         {Cell::node, "NODE", 4, true, {}},
                                         {Cell::memory, "MEMORY", 13, true, Order::memory},
                                         {Cell::version, "VERSION", 7, true, {}}};
  int left = columns - kMarkColumns + 1;
  for (const Column& column : ranked) {
    const bool late = column.cell >= Cell::node && column.cell != Cell::rate && column.cell != Cell::does;
    if (column.width + 1 + (late ? kDoesMore : 0) > left) continue;
    left -= column.width + 1;
    columns_.push_back(column);
  }
  std::sort(columns_.begin(), columns_.end(), [](const Column& a, const Column& b) { return a.cell < b.cell; });
  if (!columns_.empty() && columns_.back().cell == Cell::does) columns_.back().width += left;
}

Line ActorsTable::title() const {
  Line line{{std::string(kMarkColumns, ' ')}};
  for (const Column& column : columns_) {
    const bool marked = column.order && column.order == order_;
    std::string name = column.name;
    if (column.cell == Cell::does) name = "     " + name;
    if (marked && reversed_) name = std::string(utf8_ ? "↑" : "^") + name;
    line.push_back({fitted(name, column.width, column.at_right), marked ? Tone::strong : Tone::dim, marked});
    line.push_back({" "});
  }
  return line;
}

Span ActorsTable::text_of(Cell cell, const ActorView& a, bool stale) const {
  const Tone tone = stale ? Tone::dim : Tone::plain;
  const auto percent = [](double share) { return std::lround(100 * share); };
  switch (cell) {
    case Cell::actor:
      return {to_string(a.address), stale ? Tone::dim : Tone::strong};
    case Cell::state:
      return {a.state, stale && a.state != "dead" ? Tone::dim : tone_of_state(a.state)};
    case Cell::queue:
      return {fmt::format("{}", a.queue), tone};
    case Cell::oldest:
      return {a.queue > 0 ? human_age(a.oldest_age_us) : "-", a.queue > 0 ? tone : Tone::dim};
    case Cell::node:
      return {fmt::format("{}", a.node), tone};
    case Cell::credits:
      if (a.credits.of == 0) return {"-", Tone::dim};
      return {fmt::format("{}/{}", a.credits.free, a.credits.of), a.credits.free == 0 && !stale ? Tone::warn : tone};
    case Cell::rate:
      return {count_text(a.messages_per_second), tone};
    case Cell::split:
      return {fmt::format("{:>3}/{:>3}/{:>3}", percent(a.busy), percent(a.handling), percent(a.waiting)), tone};
    case Cell::version:
      return {fmt::format("{}", a.version), tone};
    case Cell::memory:
      if (a.bytes == 0 && a.bytes_bound == 0) return {"-", Tone::dim};
      return {memory_text(a.bytes, a.bytes_bound), a.bytes > a.bytes_bound && a.bytes_bound > 0 ? Tone::bad : tone};
    case Cell::does:
      if (a.doing.empty()) return {"", Tone::dim};
      return {fmt::format("{:>8}  {}", human_age(a.doing_age_us), without_state(a)),
              a.state == "stuck" ? Tone::bad : tone};
  }
  return {};
}

Line ActorsTable::row(const ActorView& actor, bool selected) const {
  const bool stale = silent_.contains(actor.node);
  Line line{{selected ? ">" : " ", Tone::strong}};
  for (const Column& column : columns_) {
    Span span = text_of(column.cell, actor, stale);
    span.text = fitted(span.text, column.width, column.at_right);
    line.push_back(std::move(span));
    line.push_back({" "});
  }
  for (Span& span : line) {
    span.filled = selected;
    if (selected && span.tone != Tone::bad) span.tone = Tone::plain;
  }
  return line;
}

}  // namespace troupe
