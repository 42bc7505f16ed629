// What generating needs of a configuration.
#pragma once

#include <cstddef>

#include "actors/config.h"

namespace troupe {

// Makes room: a slot for the longest prompt, one slot for each compute thread, a cache for as many prompts as are
// decoded together.
void fit_generation(Config& config, std::size_t prompts, std::size_t longest, int tokens_max);

}  // namespace troupe
