// Recovery: which state everybody can come to after a loss, and from whom. A pure function of what the holders say.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "actors/config.h"
#include "messages/message.h"

namespace troupe {

// Where a tensor's copy lives: its twin in another replica on another node, else a shadow on the next node. Owners
// whose state is kept by a shadow, and the shadow of each.
std::map<Address, Address> shadows(const Config& config);

// Everybody who holds the same state as `holder`: an owner, its twins, its shadow; itself too.
std::vector<Address> holders_of_same(const Config& config, const Address& holder);

// All who answer an Inquiry: owners, then shadows.
std::vector<Address> holders(const Config& config);

struct RecoveryPlan {
  std::int64_t version = 0;
  bool from_disk = false;            // nobody holds a state, or some part of it is lost: load what Recover names
  std::optional<Decision> decision;  // made `version`
  std::map<Address, Address> fetch;  // who asks whom for the state
};
// REQUIRES: a standing of every holder. `begin`: what Recover says.
RecoveryPlan plan_recovery(const Config& config, const Recover& begin, const std::map<Address, Standing>& standings);

// Of `living` nodes some don't hear each other: `apart` has pairs (who complains, of whom). Who is lost: the one that is
// apart from all others, at once; else, when all had the time to complain (`waited`), the one that is apart from most,
// of equals the later. Who is cut off may be the first to complain, of any other: one complaint says nothing of whose
// fault it is.
std::optional<std::uint32_t> cut_off(const std::set<std::pair<std::uint32_t, std::uint32_t>>& apart, std::size_t living,
                                     bool waited);

}  // namespace troupe
