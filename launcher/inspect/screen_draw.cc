// The lines of a Screen: what stands on top, the pane, what was said, the keys.
#include <fmt/format.h>

#include <algorithm>

#include "launcher/inspect/screen.h"
#include "launcher/inspect/table.h"
#include "launcher/inspect/view_text.h"

namespace troupe {

namespace {

constexpr int kHighRows = 20;     // a terminal so high has room for the bill, the load and what was said
constexpr int kVerdictLines = 3;  // at most, of the head's later lines

const char* name_of(ActorOrder order) {
  const char* const kNames[] = {"actor", "queue", "oldest", "messages", "busy", "waits", "memory"};
  return kNames[static_cast<std::size_t>(order)];
}

void append(Lines& lines, const Lines& more) { lines.insert(lines.end(), more.begin(), more.end()); }

// Keys that fit, the first ones being the most needed.
Line keys_that_fit(const std::vector<std::pair<std::string, std::string>>& keys, int columns) {
  Line line;
  int left = columns;
  for (const auto& [key, does] : keys) {
    const int wide = columns_of(key) + columns_of(does) + 3;
    if (wide > left) continue;
    line.push_back({key, Tone::strong});
    line.push_back({" " + does + "  ", Tone::dim});
    left -= wide;
  }
  return line;
}

}  // namespace

// In a low terminal the table comes first.
Lines Screen::top(const View& view, const ScreenSize& size) const {
  const Paper paper{size.columns, utf8_};
  const bool high = size.rows >= kHighRows;
  Lines lines = head_of(view, paper);
  lines.resize(std::min<std::size_t>(lines.size(), high ? 2 + kVerdictLines : view.healthy ? 3 : 4));
  if (pane_ == Pane::actors) {
    append(lines, nodes_in_short(view, paper, static_cast<std::size_t>(std::max(1, size.rows / 8))));
    if (high) append(lines, bill_in_short(view, paper));
    if (high) append(lines, experts_in_short(view, paper, static_cast<std::size_t>(size.rows / 12)));
  }
  return lines;
}

Lines Screen::draw(const View& view, const std::vector<LastMessage>& messages, const ScreenSize& size) {
  Lines lines = top(view, size);
  const Line status = status_line(view, size.columns);
  const auto rows = static_cast<std::size_t>(std::max(1, size.rows));
  const std::size_t below = size.rows >= kHighRows || !said_.empty() || typing_ ? 2 : 1;
  page_ = rows > lines.size() + below ? rows - lines.size() - below : 0;
  if (pane_ == Pane::actors)
    draw_table(view, size, lines);
  else
    draw_pane(view, messages, size, lines);
  lines.resize(rows - std::min(rows, below));
  if (below == 2) lines.push_back(status);
  lines.push_back(keys_line(view, size.columns));
  lines.resize(rows);
  for (Line& line : lines) line = fitted(line, size.columns, utf8_);
  return lines;
}

void Screen::draw_table(const View& view, const ScreenSize& size, Lines& lines) {
  const ActorsTable table(view, size.columns, order_, reversed_, utf8_);
  lines.push_back(table.title());
  page_ -= std::min<std::size_t>(page_, 1);
  const auto actors = chosen(view);
  const std::size_t selected = selected_row(actors);
  first_ = std::min(first_, actors.size() - std::min(actors.size(), page_));  // no blank rows below the last
  first_ = std::min(first_, selected);
  if (selected >= first_ + page_ && page_ > 0) first_ = selected + 1 - page_;
  for (std::size_t i = first_; i < std::min(actors.size(), first_ + page_); ++i)
    lines.push_back(table.row(*actors[i], i == selected));
  if (actors.empty())
    lines.push_back({{view.actors.empty() ? " no process of this run has started"
                                          : fmt::format(" no actor's line holds \"{}\"; Esc shows all", filter_),
                      Tone::dim}});
}

void Screen::draw_pane(const View& view, const std::vector<LastMessage>& messages, const ScreenSize& size,
                       Lines& lines) {
  const Paper paper{size.columns, utf8_};
  Lines pane;
  if (pane_ == Pane::actor) pane = actor_pane(view, opened_.value_or(Address{}), messages, paper);
  if (pane_ == Pane::why) pane = why_pane(view, paper);
  if (pane_ == Pane::bill) pane = bill_pane(view, paper);
  if (pane_ == Pane::experts) pane = experts_pane(view, paper);
  if (pane_ == Pane::nodes) pane = nodes_pane(view, paper, node_);
  if (pane_ == Pane::help) pane = help_pane(view, paper);
  if (pane_ == Pane::nodes)  // the selected one's first line is the one that is filled
    for (std::size_t i = 0; i < pane.size(); ++i)
      if (!pane[i].empty() && pane[i].front().filled) {
        if (i < scroll_) scroll_ = i;
        if (i >= scroll_ + page_) scroll_ = i + 1 - std::min(page_, i + 1);
      }
  lines.emplace_back();
  page_ -= std::min<std::size_t>(page_, 1);
  scroll_ = std::min(scroll_, pane.size() - std::min(pane.size(), page_));
  for (std::size_t i = scroll_; i < std::min(pane.size(), scroll_ + page_); ++i) lines.push_back(pane[i]);
  if (pane.size() > page_ && page_ > 0)
    lines[lines.size() - std::min(pane.size(), page_) - 1] = {
        {fmt::format("lines {} to {} of {}", scroll_ + 1, std::min(pane.size(), scroll_ + page_), pane.size()),
         Tone::dim}};
}

// What was said; while a filter is typed, it; otherwise what the selected actor does, in full.
Line Screen::status_line(const View& view, int columns) const {
  if (typing_)
    return {
        {"filter: ", Tone::strong}, {filter_}, {" ", Tone::plain, true}, {"  Enter keeps it, Esc clears", Tone::dim}};
  if (!said_.empty()) return {{said_, said_bad_ ? Tone::bad : Tone::good}};
  if (pane_ != Pane::actors) return {};
  const auto actors = chosen(view);
  std::string text = fmt::format("{} of {} actors", actors.size(), view.actors.size());
  text += fmt::format(", by {}{}", name_of(order_), reversed_ ? ", reversed" : "");
  if (!filter_.empty()) text += fmt::format(", with \"{}\"", filter_);
  Line line{{text, Tone::dim}};
  if (actors.empty()) return line;
  const ActorView& actor = *actors[selected_row(actors)];
  std::string doing = "  " + to_string(actor.address) + " " + (actor.doing.empty() ? "does nothing" : actor.doing);
  // Where there is no room for both: that actors are left out must be seen.
  if (filter_.empty() && columns_of(text) + columns_of(doing) > columns) line.clear();
  line.push_back({doing.substr(line.empty() ? 2 : 0)});
  return line;
}

Line Screen::keys_line(const View& view, int columns) const {
  std::vector<std::pair<std::string, std::string>> keys{{"q", "quit"}, {"?", "help"}};
  if (pane_ == Pane::actors)
    keys.insert(keys.end(), {{"s", std::string("sort: ") + name_of(order_)}, {"/", "filter"}, {"Enter", "open"}});
  else
    keys.emplace_back("Esc", "back");
  for (const auto& [key, does] : {std::pair{"w", "why"}, {"b", "bill"}, {"e", "experts"}, {"n", "nodes"}})
    keys.emplace_back(key, does);
  if (view.options.can_control) {
    keys.emplace_back("p", view.paused ? "resume" : "pause");
    keys.emplace_back(".", "step");
    if (view.options.source == RunSource::simulated) {
      keys.emplace_back("r", "run");
      keys.emplace_back("<", "back");
    }
    keys.emplace_back("K", "kill");
  }
  if (pane_ == Pane::actors) keys.emplace_back("S", "reverse");
  return keys_that_fit(keys, columns);
}

Lines help_pane(const View& view, const Paper& paper) {
  std::vector<std::pair<std::string, std::string>> text{
      {"arrows, PgUp, PgDn, Home, End", "select an actor, scroll"},
      {"Enter", "all of one actor: its waits, credits, weights version and last messages"},
      {"s, S", "sort by another column; the other way round"},
      {"/", "only actors whose name, state or doings hold a text, or of \"node 1\""},
      {"w", "why the run waits: from the conductor to the root"},
      {"b, e, n", "the bill with what its bins mean; every expert's load; nodes and threads"},
      {"Esc", "back to the actors; there: shows all of them"},
      {"q, Ctrl-C", "quit; the run goes on"},
      {"", ""},
      {"QUEUE, OLDEST", "messages that wait for the actor, and for how long the first has waited"},
      {"FOR, DOES", "what it handles, computes or waits for now, and for how long"},
      {"CREDITS", "free, of all that it was granted: what it may still send before it must wait"},
      {"BUSY/H/WAIT%", "of the last second: its segments ran, its handlers ran, neither"},
      {"stuck", "in one handler for more than a second"},
      {"load", "rows of each expert; the number: the busiest's, of the mean"}};
  if (view.options.can_control)
    text.insert(text.begin() + 8, {"p, ., K", "pause or resume; one step, then pause; kill a node (asks first)"});
  if (view.options.can_control && view.options.source == RunSource::simulated)
    text[8] = {"p, ., r, <, K", "pause; one message, 1000 messages, one message back; kill a node (asks first)"};
  Lines lines;
  const bool wide = paper.columns >= 70;
  const int indent = wide ? 31 : 2;
  for (const auto& [key, does] : text) {
    bool beside = wide;  // the key and what it does in one line
    if (!wide) lines.push_back({{key, Tone::strong}});
    for (const std::string& part : wrapped(does, paper.columns - indent)) {
      lines.push_back({{fitted(beside ? key : "", indent), Tone::strong}, {part}});
      beside = false;
    }
  }
  return lines;
}

}  // namespace troupe
