// A terminal for tests: a program in a tmux of its own, keys in, the screen as text out. The law: when a Terminal is gone
// from the test, so is its tmux, and what ran in it.
#pragma once

#include <string>
#include <vector>

#include "tests/support/run.h"

namespace troupe::test {

// Says so, once a test, where there is no tmux.
bool has_tmux();

class Terminal {
 public:
  // command: for a shell.
  Terminal(const std::string& command, int columns, int rows);
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  // As tmux names them: "Enter", "Down", "C-c", "s".
  void press(const std::vector<std::string>& keys) const;
  void resize(int columns, int rows) const;
  std::string screen() const;
  std::string screen_with_colours() const;  // as escape sequences
  std::string ask(const std::string& format) const;
  // Looks until the screen has the text; false: it never had, in 20 s.
  bool shows(const std::string& text) const;
  bool shows_no_more(const std::string& text) const;

 private:
  std::string tmux(const Arguments& arguments) const;
  Folder folder_;
};

}  // namespace troupe::test
