// What must hold in every simulated world, whatever strikes it. The ledger watches messages as they pass; the curve is
// what the world reported, to be compared bit for bit with that of an undisturbed world of the same numbers.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "actors/config.h"
#include "actors/data/corpus.h"
#include "messages/message.h"

namespace troupe {

// Watches votes and decisions: every token of a decided step was counted once, and a step has one decision.
class Ledger {
 public:
  // REQUIRES: config and corpus outlive the ledger. corpus: null with rollouts; then the step's own plan is what counts.
  Ledger(const Config& config, const Corpus* corpus) : config_(config), corpus_(corpus) {}
  void see(const Envelope& envelope);
  // The first law broken, as a sentence; empty: none.
  const std::string& broken() const { return broken_; }
  std::uint64_t votes() const { return votes_seen_; }

 private:
  using Try = std::pair<std::int64_t, std::uint32_t>;  // step, attempt
  void see_vote(const Vote& vote, const Address& from);
  void see_decision(const Decision& decision, const Address& to);
  void check_votes(const Decision& decision);
  void check_rows(const Decision& decision, const std::map<std::int32_t, std::int64_t>& rows_of_layer);
  void breaks(const std::string& sentence);

  const Config& config_;
  const Corpus* corpus_;
  std::map<Try, std::map<Address, Vote>> votes_;
  std::map<Try, StepPlan> plans_;
  std::map<std::int64_t, std::string> decided_;  // by step: all that a decision says about numbers
  std::uint64_t votes_seen_ = 0;
  std::string broken_;
};

// What a run reported: by step and by evaluated version, every digit.
struct Curve {
  std::map<std::int64_t, std::string> steps, evaluations;
  std::string broken;  // a step out of turn, or one reported twice with different numbers
};
// Reads what one world said into the run's curve.
void read_curve(Curve& curve, const std::vector<Report>& reports);

// Time is money: the bins of a bill sum to threads x time within 0.1 %, and none is below zero. Empty: they do.
std::string broken_by(const nlohmann::json& bill);

// What an undisturbed world of these numbers came to.
struct Undisturbed {
  Curve curve;
  std::string digest;                           // of the final weights
  std::map<std::int64_t, std::string> states;   // by version: state_digest of its checkpoint
  std::map<std::string, std::string> rollouts;  // by folder: sha256 of its journal
};
// Journals of a run's rollouts; and what is wrong with one run's beside another's: a rollout is missing, or other answers
// were sampled. Empty: nothing.
std::map<std::string, std::string> rollouts_of(const std::string& folder);
std::string rollout_problem(const std::map<std::string, std::string>& found,
                            const std::map<std::string, std::string>& undisturbed);
// Of a checkpoint: weights, moments and router bias, every bit.
std::string state_digest(const std::string& checkpoint);
// What a finished checkpoint must be besides verified: complete, and that state of the undisturbed run. Empty: it is.
std::string checkpoint_problem(const std::string& checkpoint, std::int64_t version, const Undisturbed* reference);
// The first difference as a sentence; empty: the same bits. An empty digest is not compared.
std::string difference(const Undisturbed& reference, const Curve& curve, const std::string& digest);

}  // namespace troupe
