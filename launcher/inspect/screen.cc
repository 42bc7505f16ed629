// What keys do.
#include "launcher/inspect/screen.h"

#include <fmt/format.h>

#include <algorithm>

namespace troupe {

namespace {

using Name = Key::Name;
constexpr std::size_t kOrders = 7;
constexpr std::uint64_t kManyMessages = 1000;  // that one key lets a simulated world handle

void erase_last_letter(std::string& text) {
  while (!text.empty()) {
    const bool inner = (static_cast<unsigned char>(text.back()) & 0xc0) == 0x80;
    text.pop_back();
    if (!inner) return;
  }
}

}  // namespace

std::optional<Address> Screen::opened() const { return pane_ == Pane::actor ? opened_ : std::nullopt; }

void Screen::show(Pane pane) {
  pane_ = pane_ == pane ? Pane::actors : pane;
  scroll_ = 0;
}

std::vector<const ActorView*> Screen::chosen(const View& view) const {
  auto actors = chosen_actors(view, order_, filter_);
  if (reversed_) std::reverse(actors.begin(), actors.end());
  return actors;
}

// Of one that the filter has hidden: the first.
std::size_t Screen::selected_row(const std::vector<const ActorView*>& chosen) const {
  for (std::size_t i = 0; selected_ && i < chosen.size(); ++i)
    if (chosen[i]->address == *selected_) return i;
  return 0;
}

// What a kill would strike: in the pane of nodes the node that is selected there, otherwise that of the actor.
std::uint32_t Screen::selected_node(const View& view) const {
  if (pane_ == Pane::nodes) return node_;
  const auto actors = chosen(view);
  std::optional<Address> meant = opened();
  if (!meant && !actors.empty()) meant = actors[selected_row(actors)]->address;
  for (const ActorView& actor : view.actors)
    if (meant && actor.address == *meant) return actor.node;
  return 0;
}

Screen::Wish Screen::press(const Key& key, const View& view) {
  said_.clear();
  if (asked_) {
    Wish wish;
    if (key.letter == "y") wish.control = asked_;
    if (!wish.control) tell("nothing was done", false);
    asked_.reset();
    return wish;
  }
  if (typing_ && (key.name == Name::letter || key.name == Name::enter || key.name == Name::escape ||
                  key.name == Name::backspace)) {
    type(key);
    return {};
  }
  if (key.name == Name::letter) return key.letter.size() == 1 ? letter(key.letter.front(), view) : Wish{};
  if (key.name == Name::escape || key.name == Name::backspace) {
    if (pane_ == Pane::actors && key.name == Name::escape) filter_.clear();
    show(Pane::actors);
  } else if (key.name == Name::enter) {
    const auto actors = chosen(view);
    if (pane_ != Pane::actors || actors.empty()) return {};
    opened_ = selected_ = actors[selected_row(actors)]->address;
    show(Pane::actor);
  } else {
    move(key, view);
  }
  return {};
}

void Screen::type(const Key& key) {
  if (key.name == Name::letter) filter_ += key.letter;
  if (key.name == Name::backspace) erase_last_letter(filter_);
  if (key.name == Name::escape) filter_.clear();
  typing_ = key.name == Name::letter || key.name == Name::backspace;
  first_ = 0;
}

Screen::Wish Screen::letter(char letter, const View& view) {
  switch (letter) {
    case 'q':
      return {.quit = true, .control = {}};
    case 's':
      order_ = static_cast<ActorOrder>((static_cast<std::size_t>(order_) + 1) % kOrders);
      return {};
    case 'S':
      reversed_ = !reversed_;
      return {};
    case '/':
      pane_ = Pane::actors;
      typing_ = true;
      return {};
    case 'w':
      return show(Pane::why), Wish{};
    case 'b':
      return show(Pane::bill), Wish{};
    case 'e':
      return show(Pane::experts), Wish{};
    case 'n':
      node_ = selected_node(view);
      return show(Pane::nodes), Wish{};
    case '?':
    case 'h':
      return show(Pane::help), Wish{};
    default:
      return control_by(letter, view);
  }
}

Screen::Wish Screen::control_by(char letter, const View& view) {
  const bool simulated = view.options.source == RunSource::simulated;
  const bool travels = letter == 'r' || letter == '<';
  if (letter != 'p' && letter != '.' && letter != 'K' && !travels) return {};
  if (!view.options.can_control) return tell("nobody may control this run from here", true), Wish{};
  if (travels && !simulated) return tell("message by message goes a simulated world alone", true), Wish{};
  if (letter == 'K') return ask_to_kill(view);
  Control control;
  if (letter == 'p') control.what = view.paused ? Control::Do::resume : Control::Do::pause;
  if (letter == '.') control.what = Control::Do::step;
  if (letter == '<') control.what = Control::Do::back;
  if (letter == 'r') {
    control.what = Control::Do::run;
    control.messages = kManyMessages;
  }
  return {.quit = false, .control = control};
}

Screen::Wish Screen::ask_to_kill(const View& view) {
  Control control;
  control.what = Control::Do::kill;
  control.node = selected_node(view);
  std::string process;
  for (const NodeView& node : view.nodes)
    if (node.node == control.node && view.options.source != RunSource::simulated)
      process = fmt::format(" (process {})", node.pid);
  tell(fmt::format("kill node {}{}? y: yes, any other key: no", control.node, process), true);
  asked_ = control;
  return {};
}

void Screen::move(const Key& key, const View& view) {
  if (pane_ == Pane::actors) return move_in_table(key, view);
  const std::size_t page = std::max<std::size_t>(page_, 1);
  if (pane_ == Pane::nodes && (key.name == Name::up || key.name == Name::down)) {
    const auto at =
        std::find_if(view.nodes.begin(), view.nodes.end(), [&](const NodeView& n) { return n.node == node_; });
    if (key.name == Name::up && at != view.nodes.begin()) node_ = std::prev(at)->node;
    if (key.name == Name::down && at != view.nodes.end() && std::next(at) != view.nodes.end())
      node_ = std::next(at)->node;
    return;
  }
  if (key.name == Name::up) scroll_ -= std::min<std::size_t>(scroll_, 1);
  if (key.name == Name::down) ++scroll_;
  if (key.name == Name::page_up) scroll_ -= std::min(scroll_, page);
  if (key.name == Name::page_down) scroll_ += page;
  if (key.name == Name::home) scroll_ = 0;
  if (key.name == Name::end) scroll_ = std::size_t{1} << 30;  // drawing knows where the end is
}

// Whoever is selected stays so when the order changes; who stays at the top sees who comes to it.
void Screen::move_in_table(const Key& key, const View& view) {
  const auto actors = chosen(view);
  if (actors.empty()) return;
  const std::size_t page = std::max<std::size_t>(page_, 1), last = actors.size() - 1;
  std::size_t row = selected_row(actors);
  if (key.name == Name::up) row -= std::min<std::size_t>(row, 1);
  if (key.name == Name::down) row = std::min(row + 1, last);
  if (key.name == Name::page_up) row -= std::min(row, page);
  if (key.name == Name::page_down) row = std::min(row + page, last);
  if (key.name == Name::home) row = 0;
  if (key.name == Name::end) row = last;
  selected_ = row == 0 ? std::nullopt : std::optional(actors[row]->address);
}

}  // namespace troupe
