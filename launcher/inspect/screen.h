// Screen: the full-screen view as a value: which pane, which actor, sorted by what. It takes keys and gives lines, and
// knows neither a terminal nor where the view comes from. The law: as many lines as the terminal has rows, each as wide.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "launcher/inspect/panes.h"
#include "launcher/inspect/source.h"

namespace troupe {

struct Key {
  enum class Name : std::uint8_t { letter, up, down, page_up, page_down, home, end, enter, escape, backspace };
  Name name = Name::letter;
  std::string letter;  // of UTF-8
};

struct ScreenSize {
  int rows = 24, columns = 80;
};

class Screen {
 public:
  Screen(ActorOrder order, std::string filter, bool utf8) : order_(order), filter_(std::move(filter)), utf8_(utf8) {}

  // What a key asks for that somebody else does.
  struct Wish {
    bool quit = false;
    std::optional<Control> control;
  };
  Wish press(const Key& key, const View& view);
  // Shown until the next key.
  void tell(const std::string& sentence, bool bad) { said_ = sentence, said_bad_ = bad; }
  // Whose last messages the next lines want.
  std::optional<Address> opened() const;
  Lines draw(const View& view, const std::vector<LastMessage>& messages, const ScreenSize& size);

 private:
  enum class Pane : std::uint8_t { actors, actor, why, bill, experts, nodes, help };
  Wish letter(char letter, const View& view);
  Wish control_by(char letter, const View& view);
  Wish ask_to_kill(const View& view);
  void type(const Key& key);
  void show(Pane pane);
  void move(const Key& key, const View& view);
  void move_in_table(const Key& key, const View& view);
  std::vector<const ActorView*> chosen(const View& view) const;
  std::size_t selected_row(const std::vector<const ActorView*>& chosen) const;
  std::uint32_t selected_node(const View& view) const;

  Lines top(const View& view, const ScreenSize& size) const;
  void draw_table(const View& view, const ScreenSize& size, Lines& lines);
  void draw_pane(const View& view, const std::vector<LastMessage>& messages, const ScreenSize& size, Lines& lines);
  Line status_line(const View& view, int columns) const;
  Line keys_line(const View& view, int columns) const;

  ActorOrder order_;
  std::string filter_;
  bool utf8_;
  bool reversed_ = false, typing_ = false;
  Pane pane_ = Pane::actors;
  std::optional<Address> selected_;  // none: the first row, whoever is there
  std::optional<Address> opened_;
  std::uint32_t node_ = 0;             // selected in the pane of nodes
  std::size_t first_ = 0, page_ = 10;  // first row of the table that is seen, and how many are
  std::size_t scroll_ = 0;             // likewise of the other panes
  std::string said_;
  bool said_bad_ = false;
  std::optional<Control> asked_;  // waits for a yes
};

}  // namespace troupe
