// The table of actors, in as many columns as the terminal has room for: which actor, its state, its mail first, then the
// rest; what it does takes what is left.
#pragma once

#include <set>
#include <vector>

#include "launcher/inspect/line.h"
#include "launcher/inspect/view.h"

namespace troupe {

class ActorsTable {
 public:
  // For a terminal so wide. `order`: the column that is marked.
  ActorsTable(const View& view, int columns, ActorOrder order, bool reversed, bool utf8);
  Line title() const;
  Line row(const ActorView& actor, bool selected) const;

 private:
  enum class Cell : std::uint8_t { actor, state, queue, oldest, node, credits, rate, split, version, memory, does };
  struct Column {
    Cell cell;
    const char* name;
    int width;
    bool at_right;
    std::optional<ActorOrder> order;
  };
  Span text_of(Cell cell, const ActorView& actor, bool stale) const;
  void choose(int columns, int name_columns);

  std::vector<Column> columns_;
  std::set<std::uint32_t> silent_;  // nodes that say nothing now
  std::optional<ActorOrder> order_;
  bool reversed_, utf8_;
};

// Of a state, and of what a node is at.
Tone tone_of_state(const std::string& state);
bool is_silent(const NodeView& node);  // what is told of it is what it last said
// "12.3/40.1 MiB"; bound 0: it isn't known.
std::string memory_text(std::uint64_t bytes, std::uint64_t bound);

}  // namespace troupe
