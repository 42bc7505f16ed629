// What an actor last said and heard, out of the journals: messages from it and to it.
// The law: a message is told once. Its handling tells it; its leaving for another node only while nobody has handled it.
#pragma once

#include <cstdint>
#include <vector>

#include "actors/journal.h"

namespace troupe {

struct LastMessage {
  JournalRecord record;    // entry: handled; or sent: it left for another node, and no journal says that it was handled
  std::int64_t at_us = 0;  // of the run's clock: when its handler began; of one not handled: when it was posted
  std::int64_t clock_us = 0;  // likewise, of the machine's clock of the day; 0: it isn't known
};

// Of `address` until that time of the run's clock, the newest first, at most so many. Journals are read one after another
// while a run goes on: of what came after the first of them was read some know less than others.
std::vector<LastMessage> last_messages(const std::vector<JournalPage>& journals, const Address& address,
                                       std::size_t most, std::int64_t until_us);

}  // namespace troupe
