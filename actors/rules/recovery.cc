// The rule: a Decision that anybody saw stands, so the latest state that anybody holds or can reach by a decision is
// where all meet. All owners had voted for it, so whoever lived then can reach it too; whoever is new fetches it.
#include "actors/rules/recovery.h"

#include <algorithm>
#include <map>

#include "actors/rules/placement.h"
#include "kernels/base/mutant.h"

namespace troupe {

namespace {

// The latest version that the holder can be at, alone.
std::int64_t reach(const Standing& s) {
  const bool pending = s.decided && s.decision.step == s.version && s.voted;
  return s.version < 0 ? -1 : s.version + (pending && !mutant(Mutant::decision_forgotten) ? 1 : 0);
}

// Whether the holder can be at `version`, told the decision that leads there.
bool can_reach(const Standing& s, std::int64_t version) {
  return s.version == version || (s.version >= 0 && s.version == version - 1 && s.voted);
}

}  // namespace

std::map<Address, Address> shadows(const Config& config) {
  std::map<Address, Address> all;
  if (config.layout.nodes == 1 || config.recovery.copies == 0) return all;
  const std::vector<Address> every = owners(config);
  const auto places = place_owners(config);
  for (std::size_t i = 0; i < every.size(); ++i) {
    bool covered = false;
    if (every[i].role == Role::stage) {
      const auto stages = static_cast<std::uint32_t>(config.layout.stages);
      for (int r = 0; r < config.layout.replicas; ++r)
        covered |=
            places.at(stage_address(config, r, static_cast<int>(every[i].index % stages))) != places.at(every[i]);
    }
    if (!covered) all[every[i]] = {Role::shadow, static_cast<std::uint32_t>(i)};
  }
  return all;
}

std::vector<Address> holders(const Config& config) {
  std::vector<Address> all = owners(config);
  for (const auto& [owner, shadow] : shadows(config)) all.push_back(shadow);
  return all;
}

std::vector<Address> holders_of_same(const Config& config, const Address& holder) {
  const std::vector<Address> every = owners(config);
  const Address owner = holder.role == Role::shadow ? every.at(holder.index) : holder;
  std::vector<Address> same;
  if (owner.role == Role::stage) {
    const auto stages = static_cast<std::uint32_t>(config.layout.stages);
    for (int r = 0; r < config.layout.replicas; ++r)
      same.push_back(stage_address(config, r, static_cast<int>(owner.index % stages)));
  } else {
    same.push_back(owner);
  }
  for (const auto& [shadowed, shadow] : shadows(config))
    if (std::find(same.begin(), same.end(), shadowed) != same.end()) same.push_back(shadow);
  return same;
}

RecoveryPlan plan_recovery(const Config& config, const Recover& begin, const std::map<Address, Standing>& standings) {
  RecoveryPlan plan;
  plan.version = -1;
  for (const auto& [holder, standing] : standings) plan.version = std::max(plan.version, reach(standing));
  for (const auto& [holder, standing] : standings)
    if (standing.decided && standing.decision.step + 1 == plan.version) plan.decision = standing.decision;
  for (const auto& [holder, standing] : standings) {
    if (plan.version < 0 || can_reach(standing, plan.version)) continue;
    const std::vector<Address> same = holders_of_same(config, holder);
    const auto source = std::find_if(same.begin(), same.end(), [&](const Address& other) {
      const auto found = standings.find(other);
      return found != standings.end() && can_reach(found->second, plan.version);
    });
    if (source == same.end()) {
      plan.version = -1;  // a part of this state is lost: everybody goes back
      break;
    }
    plan.fetch[holder] = *source;
  }
  if (plan.version >= 0) return plan;
  return {begin.version, true, std::nullopt, {}};
}

std::optional<std::uint32_t> cut_off(const std::set<std::pair<std::uint32_t, std::uint32_t>>& apart, std::size_t living,
                                     bool waited) {
  std::map<std::uint32_t, std::set<std::uint32_t>> from;
  for (const auto& [one, other] : apart) {
    from[one].insert(other);
    from[other].insert(one);
  }
  const auto worst = std::max_element(from.begin(), from.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second.size(), a.first) < std::pair(b.second.size(), b.first);
  });
  if (worst == from.end() || (!waited && worst->second.size() + 1 < living)) return std::nullopt;
  return worst->first;
}

}  // namespace troupe
