// The colours of pictures: distinct for the colour-blind too, on light and on dark ground.
#pragma once

#include <array>

namespace troupe {

constexpr std::array kColours = {"#4477aa", "#ee7733", "#228833", "#cc3377",
                                 "#33a6c7", "#b8942a", "#8855bb", "#aa4422"};

}  // namespace troupe
