#include "actors/rules/bill.h"

#include <array>
#include <optional>
#include <utility>

#include "kernels/base/check.h"

namespace troupe {

namespace {

constexpr Address kConductor{Role::conductor, 0};

// Of several things that a node waits for, the one with the lowest rank is the cause: recovery; then what the work under
// way needs; then what ends a step; then what would bring more work; then what goes on beside the work.
struct Ranked {
  int rank = 0;
  Bin bin = Bin::waiting;
};

Ranked of_credit(const Address& holder) {
  if (holder.role == Role::checkpointer) return {7, Bin::checkpoint};
  return holder.role == Role::expert_shard ? Ranked{1, Bin::imbalance} : Ranked{2, Bin::bubble};
}

// Nothing: the wait is behind others of the same node.
std::optional<Ranked> rank_of(const Wait& wait, bool ran) {
  switch (wait.what) {
    case Awaited::recover:
    case Awaited::standing:
    case Awaited::restore:
    case Awaited::restored:
    case Awaited::state_part:
      return Ranked{0, ran ? Bin::redo : Bin::start_up};
    case Awaited::leave:
      return Ranked{0, Bin::paused};
    case Awaited::expert_result:
      return Ranked{1, Bin::imbalance};
    case Awaited::activations:
    case Awaited::activation_gradients:
    case Awaited::shared_tensor:
      return Ranked{2, Bin::bubble};
    case Awaited::credit:
      return of_credit(wait.holder);
    case Awaited::partial_sums:
    case Awaited::reduced_sums:
    case Awaited::shared_gradient:
    case Awaited::gradient_held:
    case Awaited::vote:
      return Ranked{3, Bin::waiting};
    case Awaited::tokens:
    case Awaited::step_plan:
    case Awaited::evaluation:
    case Awaited::generated:
      return Ranked{4, Bin::waiting};
    case Awaited::rollout:
    case Awaited::answers:
    case Awaited::verdict:
      return Ranked{4, Bin::rollout_tail};
    case Awaited::weights_digest:
    case Awaited::decision:
    case Awaited::start:
      return Ranked{5, Bin::waiting};
    case Awaited::expert_batch:
      return Ranked{6, Bin::imbalance};
    case Awaited::snapshot_part:
    case Awaited::checkpoint:
    case Awaited::disk:
      return Ranked{7, Bin::checkpoint};
    case Awaited::segment:
      return Ranked{8, Bin::narrow};
    case Awaited::shadow_gradient:  // a copy has no work of its own
    case Awaited::slot:
    case Awaited::turn:
      return {};
  }
  return {};
}

bool owns_work(const Address& actor) { return actor.role == Role::stage || actor.role == Role::expert_shard; }

// The lowest rank of what leaves the node, among the actors that own its work, or among the others.
std::optional<Cause> first_of(const NodeWaits& waits, bool ran, bool owners) {
  std::optional<std::pair<int, Cause>> best;
  for (const auto& [actor, own] : waits) {
    for (const Wait& wait : own) {
      if (wait.holder != actor && waits.contains(wait.holder)) continue;  // its own waits say why
      const auto ranked = rank_of(wait, ran);
      if (!ranked || (best && best->first <= ranked->rank) || (owns_work(actor) != owners && ranked->rank > 0))
        continue;
      const bool held = wait.holder != actor;
      best = {ranked->rank, {ranked->bin, held && ranked->rank > 0 ? wait.holder : kNoHolder}};
    }
  }
  if (!best) return {};
  return best->second;
}

}  // namespace

Cause cause_of(const NodeWaits& waits, bool ran) {
  if (const auto cause = first_of(waits, ran, true)) return *cause;
  if (const auto cause = first_of(waits, ran, false)) return *cause;
  return {Bin::waiting, kConductor};
}

const char* to_string(Bin bin) {
  constexpr std::array<const char*, kBins> kNames = {"useful",    "evaluation", "messages",     "narrow", "bubble",
                                                     "imbalance", "waiting",    "checkpoint",   "redo",   "start-up",
                                                     "rollout",   "scoring",    "rollout tail", "paused"};
  CHECK(static_cast<std::size_t>(bin) < kBins, "no bin {}", static_cast<int>(bin));
  return kNames[static_cast<std::size_t>(bin)];
}

const char* meaning(Bin bin) {
  constexpr std::array<const char*, kBins> kMeanings = {"training",
                                                        "held-out loss and answers",
                                                        "messages handled, threads woken",
                                                        "too little to do at once",
                                                        "waiting for another stage",
                                                        "waiting for experts' rows",
                                                        "waiting for the slowest",
                                                        "copying and writing",
                                                        "lost work and recovery",
                                                        "starting and ending",
                                                        "sampling answers",
                                                        "log-probabilities of samples",
                                                        "waiting for the last answers and verdicts",
                                                        "paused by somebody"};
  CHECK(static_cast<std::size_t>(bin) < kBins, "no bin {}", static_cast<int>(bin));
  return kMeanings[static_cast<std::size_t>(bin)];
}

}  // namespace troupe
