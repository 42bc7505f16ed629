// The journals of a small company in virtual time: three steps of two nodes, stages and shards, with all that happened.
#pragma once

#include <cstddef>
#include <vector>

#include "actors/journal.h"

namespace troupe::test {

struct SmallWorld {
  std::vector<JournalPage> journals;
  std::size_t segments = 0;  // that devices finished
};
SmallWorld small_world();

}  // namespace troupe::test
