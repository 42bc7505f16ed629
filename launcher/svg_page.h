// Several pictures under one another as one SVG, with a ground of its own: white, or dark where the reader's system is.
#pragma once

#include <string>
#include <vector>

namespace troupe {

// parts: whole SVGs, whose first tag tells width and height in plain numbers. lines: what stands below the title.
std::string svg_page(const std::string& title, const std::vector<std::string>& lines,
                     const std::vector<std::string>& parts);

}  // namespace troupe
