// Mutants: faults planted on purpose, so that the simulation can show that it finds them. Law: a build is healthy unless
// it is the build of the mutants, which has all of them and picks one; everywhere else mutant() is a constant, false.
#pragma once

#include "kernels/base/picked_mutant.h"

namespace troupe {

enum class Mutant : int {
  none,
  microbatch_credit_kept,
  empty_chunk_credit_kept,
  credit_without_layer,
  early_credit_dropped,
  duplicate_delivered,
  stale_incarnation_accepted,
  gap_ignored,
  damage_accepted,
  acknowledged_too_much,
  vote_before_copy,
  vote_of_old_attempt,
  chunk_of_old_attempt,
  decided_before_last_vote,
  decision_forgotten,
  decision_applied_twice,
  half_update_forgotten,
  shadow_keeps_old,
  moments_not_fetched,
  moments_not_loaded,
  router_bias_not_fetched,
  restored_early,
  conductor_forgets,
  sums_kept,
  counts_kept,
  chunks_by_arrival,
  microbatches_by_arrival,
  wrong_lane,
  sums_under_wrong_step,
  lost_wakeup,
  part_of_forgotten_save,
  manifest_first,
  rename_before_sync,
  done_before_disk,
  pruned_early,
  count
};

constexpr bool mutant(Mutant one) { return one != Mutant::none && is_picked(static_cast<int>(one)); }

}  // namespace troupe
