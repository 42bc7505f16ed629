// Line: what stands in one row of a terminal, as a value: texts with their tones. Widths are columns of the terminal: a
// wide rune takes two, a combining one none (by the locale that the process has; see terminal.cc).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace troupe {

// What a text is, not its colour: terminal.cc knows which colours there are.
enum class Tone : std::uint8_t { plain, dim, strong, good, note, warn, bad, other, more };

struct Span {
  std::string text;
  Tone tone = Tone::plain;
  bool filled = false;  // dark on light: a bar, the row that is selected
};
using Line = std::vector<Span>;

int columns_of(const std::string& text);
// Cut to so many columns, or filled with blanks.
std::string fitted(const std::string& text, int columns, bool at_right = false);
// The same; what the terminal could mistake for a command, or can't show without UTF-8, becomes '?'.
Line fitted(const Line& line, int columns, bool utf8);
// At blanks; later lines begin with so many blanks.
std::vector<std::string> wrapped(const std::string& text, int columns, int indent = 0);
std::string plain_text(const Line& line);

}  // namespace troupe
