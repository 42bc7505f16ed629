// The clocks of the machines that a run's journals are from, laid upon each other: on one machine all processes read one
// clock; between two, messages tell. If t is how long the quickest message from A to B seems to have taken, by the clocks
// of both, and u the quickest from B to A, then B's clock is ahead by (t - u) / 2, and wrong by at most (t + u) / 2: no
// message comes before it was sent. Where no messages went both ways, the machines' clocks of the day must do.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "actors/journal.h"

namespace troupe {

class JournalClocks {
 public:
  // Every journal's owner, then every record of every journal, in any order; then lay.
  void know(const JournalOwner& owner);
  void hear(const JournalOwner& owner, const JournalRecord& record);
  void lay();

  // There is but one clock: nothing need be heard.
  bool same() const;
  // Moves a journal's times to the clock of the lowest node's last journal.
  void move(JournalOwner& owner, JournalRecord& record) const;
  void move(JournalPage& page) const;

 private:
  using Place = std::pair<std::uint32_t, std::uint32_t>;  // node and number, each modulo 4096
  static Place place_of(const JournalOwner& owner) { return {owner.node % 4096, owner.number % 4096}; }
  const JournalOwner& reference() const;
  bool lay_by_messages();
  bool lay_by_boot();
  bool lay_by_day();
  std::map<Place, JournalOwner> owners_;
  std::map<std::pair<Place, Place>, std::int64_t> quickest_;  // from, to
  std::map<Place, std::int64_t> ahead_;                       // of the reference's clock
};

void lay_clocks(std::vector<JournalPage>& pages);

}  // namespace troupe
