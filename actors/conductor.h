// Conductor: leads steps. It collects the votes, decides (a pure function of them), tells everybody once, and starts
// what comes next: the next step, an evaluation, the end. It holds no weights and schedules nothing within a step.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "actors/config.h"
#include "actors/metrics.h"
#include "actors/node.h"
#include "actors/rules/decision.h"
#include "actors/rules/recovery.h"
#include "actors/wait.h"

namespace troupe {

// answers: the held-out problems of [task] are answered once, and that is all. experts: one evaluation, told by how many
// rows each expert had.
enum class RunMode : std::uint8_t { train, evaluate, generate, answers, experts };

class Conductor {
 public:
  Conductor(const Context& context, const Config& config, RunMode mode);

  void on(const Recover& recover, const Address& from);
  void on(const Standing& standing, const Address& from);
  void on(const Restored& restored, const Address& from);
  void on(const StepPlan& plan, const Address& from);
  void on(const Vote& vote, const Address& from);
  void on(const EvaluationLoss& loss, const Address& from);
  void on(const CheckpointDone& done, const Address& from);
  void on(const Report& report, const Address& from);
  void on(const WeightsDigest& digest, const Address& from);
  void on(const RolloutDone& done, const Address& from);
  void on(const Credit&, const Address&) {}
  void on(const Stop& stop, const Address& from);
  void on(const Pause& pause, const Address& from);
  void waits(Waits& out) const;
  std::uint32_t attempt() const { return attempt_; }
  std::int64_t version() const { return state_.version; }

 private:
  // conductor_waits.cc
  void evaluation_waits(Waits& out) const;
  void rollout_waits(Waits& out) const;

  // conductor_rollouts.cc
  void lead_rollouts();
  void start_sampled_step();
  bool rollouts_durable() const;
  void start_answers();
  bool answers_due() const;
  void forget_rollouts();
  void forget_learned();
  std::string compare_twins() const;
  std::string gap_problem(const StepPlan& plan, const StepLosses& losses) const;

  void restore_all();
  void remember(const RecoveryPlan& plan);
  void begin();
  bool holds();
  void go_on();
  void next();
  void start_step();
  void start_evaluation();
  void try_decide();
  void finish_evaluation();
  void finish_if_done();
  void post_best();
  void report(const std::string& kind, const std::string& json);
  void problem(const std::string& sentence);
  bool evaluation_due() const;
  void look_at_allowance();

  Context context_;
  const Config& config_;
  RunMode mode_;
  std::vector<Address> owners_, holders_;
  double flops_per_token_;
  std::uint32_t attempt_ = kNoAttempt;
  Recover recover_;
  std::map<Address, Standing> standings_;
  TrainingState state_;
  std::set<Address> restored_;
  std::optional<StepPlan> plan_;
  Votes votes_;
  bool stopping_ = false, stopped_early_ = false;
  bool paused_ = false, held_ = false;  // held: it would have gone on
  std::uint32_t allowed_ = 0;           // steps that a pause lets begin
  std::string reason_;                  // why it ends: the key of a limit, or what somebody said
  std::int64_t recovered_us_ = 0;
  std::int64_t step_began_us_ = 0, run_began_us_ = 0, evaluation_began_us_ = 0;
  // Evaluation under way.
  bool evaluating_ = false;
  std::set<std::pair<Address, std::int32_t>> evaluation_heard_;  // stage and microbatch
  std::optional<StepPlan> evaluation_plan_;
  std::map<std::int32_t, double> evaluation_losses_;  // by microbatch: summed in order
  std::map<std::int32_t, std::vector<std::int64_t>> evaluation_counts_;
  std::int64_t evaluation_targets_ = 0, evaluation_answers_ = 0;
  std::int64_t evaluated_version_ = -1;
  // Checkpoint under way.
  std::int64_t checkpoint_version_ = -1;
  bool checkpoint_postponed_ = false, last_decided_ = false, finished_ = false;
  // The exact match at the end: asked of the rollout in this attempt; answered, or not wanted.
  bool asked_ = false, answered_ = false;
  std::set<std::int64_t> checkpointed_;
  // Rollouts of this attempt that steps to come learn from, by number: asked for, with the loader (and what they were
  // like), on disk. What owners of this version compute with.
  std::set<std::int64_t> rollouts_asked_, rollouts_durable_;
  std::map<std::int64_t, std::string> rollouts_ready_;
  std::map<Address, std::uint64_t> digests_;
  bool step_started_ = false, answering_ = false;
  std::int64_t answered_version_ = -1;  // held-out problems of the tasks
};

}  // namespace troupe
