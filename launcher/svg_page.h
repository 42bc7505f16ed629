// Several pictures under one another as one SVG, with a ground of its own: white, or dark where the reader's system is.
#pragma once

#include <string>
#include <vector>

namespace troupe {

// A whole SVG, whose first tag tells width and height in plain numbers.
struct PagePart {
  std::string svg;
  double left = 0;  // where it stands; below zero: what it has on its left reaches into the margin
};

// lines: what stands below the title.
std::string svg_page(const std::string& title, const std::vector<std::string>& lines,
                     const std::vector<PagePart>& parts);

}  // namespace troupe
