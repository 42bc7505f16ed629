// Text and numbers of pictures, as people read them.
#pragma once

#include <cstddef>
#include <string>

namespace troupe {

// As XML has it; control characters are left out.
std::string svg_escaped(const std::string& text);
// So many digits as tell neighbouring marks apart, of which `step` is the distance; what is tiny as 2e-8. From 10,000 on
// (`size`: the largest beside it) thousands and millions by a letter.
std::string mark_text(double value, double step, double size);
// Three digits that count; whole: of a step all.
std::string figure_text(double value, bool whole = false);
std::string counted(double count);             // "1,234,567"
std::size_t letters(const std::string& text);  // of UTF-8

}  // namespace troupe
