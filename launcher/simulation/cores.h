// Cores: which of the threads that compute have one, where a machine has fewer cores than threads, as its scheduler
// decides (Linux's, in its rough features). A thread that comes takes an idle core, else it waits at one; it computes
// until it pauses, or until its slice is over and another waits there. A core with nobody left takes over a thread that
// waits at another one only if that has waited so long that its caches are cold; it looks when it becomes idle and with
// every tick. So a core may be idle while a thread waits, which is what a machine with many short waits does. A pure rule
// on numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

namespace troupe {

struct CoresOptions {
  std::size_t cores = 1, owners = 1;
  std::int64_t slice_us = 3000, cold_us = 500, tick_us = 4000;
};

class Cores {
 public:
  explicit Cores(const CoresOptions& options);

  // Of an owner, as of now: so many of its threads compute. Then share() says who has a core.
  void want(std::size_t owner, std::size_t threads, std::int64_t now_us);
  void share(std::int64_t now_us);
  std::size_t granted(std::size_t owner) const;
  bool all_busy() const;
  bool crowded() const;  // somebody waits
  // When share() has something new to say if nobody comes or goes; the largest number: never.
  std::int64_t next_us(std::int64_t now_us) const;

 private:
  struct Waiting {
    std::size_t owner = 0;
    std::int64_t since_us = 0;
  };
  struct Core {
    bool busy = false;
    std::size_t owner = 0;
    std::int64_t until_us = 0;
    std::deque<Waiting> waiting;
  };
  void come(std::size_t owner, std::int64_t now_us);
  void go(std::size_t owner);
  void give(Core& core, std::deque<Waiting>& from, std::int64_t now_us) const;

  CoresOptions options_;
  std::vector<std::size_t> wanted_, last_core_;
  std::vector<Core> cores_;
};

}  // namespace troupe
