// Agenda: when each member of a simulated world has something to do. A tree of least times: the next of all is at its
// root, and whoever is due at or after a place is found without asking the others.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace troupe {

class Agenda {
 public:
  static constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

  void resize(std::size_t members) {
    leaves_ = 1;
    while (leaves_ < members) leaves_ *= 2;
    least_.assign(2 * leaves_, kNever);
  }
  void set(std::size_t member, std::int64_t at_us) {
    std::size_t node = leaves_ + member;
    least_[node] = at_us;
    for (node /= 2; node > 0; node /= 2) least_[node] = std::min(least_[2 * node], least_[2 * node + 1]);
  }
  void not_later(std::size_t member, std::int64_t at_us) {
    if (at_us < least_[leaves_ + member]) set(member, at_us);
  }
  std::int64_t next_us() const { return least_[1]; }
  // The first at or after `member` that is due by now; members or more: none is.
  std::size_t due(std::size_t member, std::int64_t now_us) const {
    if (member >= leaves_) return member;
    std::size_t node = leaves_ + member;
    for (; least_[node] > now_us; ++node) {
      while (node % 2 == 1) {                          // whatever is below its parent lies before it
        if ((node & (node + 1)) == 0) return leaves_;  // the right edge of the tree
        node /= 2;
      }
    }
    while (node < leaves_) node = least_[2 * node] <= now_us ? 2 * node : 2 * node + 1;
    return node - leaves_;
  }

 private:
  std::size_t leaves_ = 1;
  std::vector<std::int64_t> least_ = std::vector<std::int64_t>(2, kNever);
};

}  // namespace troupe
