// The pane of one actor: what it is at, and what it last said and heard.
#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "launcher/inspect/panes.h"
#include "launcher/inspect/table.h"
#include "launcher/inspect/view_text.h"
#include "messages/message.h"

namespace troupe {

namespace {

constexpr int kPeer = 20, kKind = 19, kWork = 13, kTime = 8;  // columns

// Of the day; where that isn't known, of the run.
std::string time_text(const LastMessage& message, bool wide) {
  const std::int64_t us = message.clock_us > 0 ? message.clock_us : message.at_us;
  const std::time_t seconds = us / 1'000'000;
  if (message.clock_us <= 0) return fmt::format("{:.6f}", static_cast<double>(us) * 1e-6);
  std::tm day{};
  localtime_r(&seconds, &day);
  const std::string second = fmt::format("{:02}.{:06}", day.tm_sec, us % 1'000'000);
  return wide ? fmt::format("{:02}:{:02}:{}", day.tm_hour, day.tm_min, second) : second;
}

std::string peer_text(const JournalRecord& record, const Address& self) {
  const std::string kind = kind_name(record.kind);
  if (record.from().role == Role::supervisor)
    return kind == "SegmentDone" ? "from its device" : kind == "DiskDone" ? "from its disk" : "from the launcher";
  if (record.from() == self) return "to   " + (record.to() == self ? "itself" : to_string(record.to()));
  return "from " + to_string(record.from());
}

std::string numbers_text(const JournalRecord& record) {
  const auto text = [](std::int64_t number) { return number < 0 ? std::string("-") : std::to_string(number); };
  if (record.step < 0) return "-";
  return fmt::format("{}/{}/{}", record.step, text(record.microbatch), text(record.layer));
}

// Columns that there is no room for are left out, the last first.
Line row_of(const std::vector<std::pair<std::string, int>>& cells, int columns, Tone tone) {
  std::string text;
  int left = columns;
  for (const auto& [cell, width] : cells) {
    const int wide = std::abs(width) + 1;
    if (wide - 1 > left) break;
    text += fitted(cell, std::abs(width), width < 0) + " ";
    left -= wide;
  }
  return {{text, tone}};
}

Line message_line(const LastMessage& message, const Address& self, int columns, bool wide) {
  const JournalRecord& r = message.record;
  const bool handled = r.entry == JournalEntry::handled;
  const std::int64_t way_us = std::max<std::int64_t>(0, r.begin_us - r.sent_us);
  return row_of({{time_text(message, wide), wide ? 15 : 9},
                 {peer_text(r, self), kPeer},
                 {kind_name(r.kind), kKind},
                 {numbers_text(r), kWork},
                 {handled ? human_age(r.took_us) : "not yet", -kTime},
                 {handled && r.sent_us > 0 ? human_age(way_us) : "-", -kTime}},
                columns, handled ? Tone::plain : Tone::warn);
}

void add_wrapped(Lines& lines, const std::string& text, Tone tone, int columns) {
  for (std::string& part : wrapped(text, columns, 2)) lines.push_back({{std::move(part), tone}});
}

}  // namespace

Lines actor_pane(const View& view, const Address& address, const std::vector<LastMessage>& messages,
                 const Paper& paper) {
  Lines lines;
  const auto actor =
      std::find_if(view.actors.begin(), view.actors.end(), [&](const ActorView& a) { return a.address == address; });
  if (actor == view.actors.end()) return {{{to_string(address) + " is on no board any more", Tone::warn}}};
  const std::vector<std::string> told = actor_lines(view, *actor);
  const bool stuck = actor->state == "stuck" || actor->state == "dead";
  for (std::size_t i = 0; i < told.size(); ++i)
    add_wrapped(lines, told[i], i < 2 && stuck ? Tone::bad : i == 0 ? Tone::strong : Tone::plain, paper.columns);
  for (const NodeView& node : view.nodes)
    if (node.node == actor->node && is_silent(node))
      add_wrapped(lines, fmt::format("data as of {} ago: node {} is {}", human_age(node.age_us), node.node, node.life),
                  Tone::warn, paper.columns);
  lines.emplace_back();
  if (messages.empty()) {
    add_wrapped(lines, "no journal has a message from it or to it", Tone::dim, paper.columns);
    return lines;
  }
  const bool wide = paper.columns >= 60;
  lines.push_back(row_of({{wide ? "TIME" : "SECOND", wide ? 15 : 9},
                          {"FROM, TO", kPeer},
                          {"MESSAGE", kKind},
                          {"STEP/MB/LAYER", kWork},
                          {"TOOK", -kTime},
                          {"ITS WAY", -kTime}},
                         paper.columns, Tone::dim));
  for (const LastMessage& message : messages) lines.push_back(message_line(message, address, paper.columns, wide));
  return lines;
}

}  // namespace troupe
