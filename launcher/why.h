// Why a run is waiting: from the boards of its nodes to the chain of who waits for whom, and to its root. A pure function
// of what was read; it needs no answer from anybody, so it works when an actor is stuck, or a process stopped or dead.
#pragma once

#include <string>
#include <vector>

#include "actors/board.h"
#include "actors/config.h"

namespace troupe {

enum class RootKind : std::uint8_t {
  dead,        // a process is gone
  stopped,     // a process is stopped
  handler,     // a handler does not return
  silent,      // a node's loop takes no turn
  link,        // nothing passes between two nodes, or a frame is missing
  segment,     // the device does not finish
  completion,  // device or disk has nothing left, and its word never came
  disk,        // the disk does not finish
  jury,        // a judge does not answer
  lost,        // one waits, and who owes it believes to have sent it
  launcher,    // the launcher has yet to say something
  circle,      // they wait for each other
  paused,      // somebody paused the run
  working,     // nothing stands still
};

struct Explanation {
  std::vector<std::string> links;  // one a wait, from the conductor on
  struct Link {
    Address who;
    Wait wait;
  };
  std::vector<Link> chain;  // the same
  std::string root;
  RootKind kind = RootKind::working;
  std::int64_t since_us = 0;  // the root's, by the clock of the boards
  std::string text() const;   // links, then "root: ..."
};

struct WhyOptions {
  std::int64_t now_us = 0;
  std::string resume;  // the command that continues the run
};
// "step 3 microbatch 2 layer 1 chunk 0 forward"
std::string describe(const WorkKey& item);
// Something stands still. What may take its time, as a large layer or file does, does so only after limits.stall_seconds.
bool stands_still(const Explanation& why, const Config& config, std::int64_t now_us);
Explanation explain(const Config& config, const std::vector<BoardPage>& pages, const WhyOptions& options);

// What `holder` waits for itself that explains why it still owes `wait` to `asker`: places in holder.waits. Empty: it
// believes to owe nothing, so `lost` went astray between the two.
struct Owed {
  std::vector<std::size_t> because;
  std::string lost;
};
Owed owed(const Config& config, const BoardPage::Actor& asker, const Wait& wait, const BoardPage::Actor& holder);

}  // namespace troupe
