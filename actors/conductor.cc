#include "actors/conductor.h"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "actors/rules/grpo.h"
#include "actors/rules/placement.h"
#include "actors/rules/trainable.h"
#include "kernels/base/log.h"
#include "kernels/base/mutant.h"

namespace troupe {

namespace {

constexpr Address kSupervisor{Role::supervisor, 0};
constexpr Address kLoader{Role::loader, 0};
constexpr Address kCheckpointer{Role::checkpointer, 0};
constexpr Address kRollout{Role::rollout, 0};

std::string read_text(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

Conductor::Conductor(const Context& context, const Config& config, RunMode mode)
    : context_(context),
      config_(config),
      mode_(mode),
      owners_(owners(config)),
      holders_(holders(config)),
      flops_per_token_(flops_per_trained_token(config)) {}

void Conductor::report(const std::string& kind, const std::string& json) {
  context_.post(kSupervisor, Report{kind, json});
}

void Conductor::problem(const std::string& sentence) { context_.post(kSupervisor, problem_report(sentence)); }

// A new attempt: what was under way is forgotten, and everybody is asked what they hold.
void Conductor::on(const Recover& recover, const Address&) {
  if (attempt_ != kNoAttempt && recover.attempt <= attempt_) return;
  recover_ = recover;
  recovered_us_ = context_.now_us();
  attempt_ = recover.attempt;
  standings_.clear();
  restored_.clear();
  votes_.clear();
  plan_.reset();
  evaluation_plan_.reset();
  asked_ = held_ = false;
  if (std::exchange(evaluating_, false)) evaluated_version_ = -1;
  if (answering_) answered_version_ = -1;
  finished_ = false;
  forget_rollouts();
  log_info("event=inquiry attempt={} holders={}", attempt_, holders_.size());
  for (const Address& holder : holders_) context_.post(holder, Inquiry{attempt_});
}

void Conductor::on(const Standing& standing, const Address& from) {
  if (standing.attempt != attempt_) return;
  standings_[from] = standing;
  if (standings_.size() == holders_.size()) restore_all();
}

// What the conductor itself must know of the state that all come to: a decision tells, or the file. Of version 0 there is
// nothing to know, whatever checkpoint was completed meanwhile.
void Conductor::remember(const RecoveryPlan& plan) {
  if (state_.version == plan.version && !plan.from_disk && plan.version > 0) return;
  const std::string file = recover_.path + "/state.json";
  if (plan.decision && !mutant(Mutant::conductor_forgets))
    state_ = state_from_json(plan.decision->state);
  else if (plan.version > 0 && !recover_.path.empty() && !recover_.weights_only)
    state_ = state_from_json(read_text(file));
  else
    state_ = TrainingState{};
  state_.version = plan.version;
  checkpointed_.clear();
  if (plan.from_disk && plan.version > 0 && !recover_.weights_only) checkpointed_.insert(plan.version);
  evaluated_version_ = answered_version_ = -1;
  answered_ = false;
}

// Leaders first: a holder's answer and its credits must find who has entered the attempt.
void Conductor::restore_all() {
  const RecoveryPlan plan = plan_recovery(config_, recover_, standings_);
  remember(plan);
  log_info("event=restore attempt={} version={} from_disk={} fetching={}", attempt_, plan.version, plan.from_disk,
           plan.fetch.size());
  Restore restore{plan.version,
                  attempt_,
                  plan.from_disk ? recover_.path : "",
                  recover_.weights_only,
                  Role::supervisor,
                  0,
                  plan.decision.has_value(),
                  false,
                  {}};
  if (plan.decision) restore.decision = *plan.decision;
  reason_ = budget_reached(config_, state_);
  // Resumed with nothing left: not even a step more.
  if (reason_.empty() && recover_.allowance_us == kNothingLeftUs && plan.from_disk && plan.version > 0) {
    reason_ = "budget";
    stopped_early_ = true;
  }
  last_decided_ = !reason_.empty() || (plan.decision && plan.decision->last);
  restore.checkpoint =
      mode_ == RunMode::train && plan.decision && plan.decision->checkpoint && !checkpointed_.contains(plan.version);
  checkpoint_version_ = restore.checkpoint ? plan.version : -1;
  checkpoint_postponed_ = false;
  for (const Address& leader : leaders(config_)) context_.post(leader, restore);
  if (restore.checkpoint) context_.post(kCheckpointer, SnapshotBegin{plan.version, state_json(state_)});
  if (state_.best_version >= 0) post_best();
  for (const Address& holder : holders_) {
    const auto source = plan.fetch.find(holder);
    restore.source_role = source == plan.fetch.end() ? Role::supervisor : source->second.role;
    restore.source_index = source == plan.fetch.end() ? 0 : source->second.index;
    context_.post(holder, restore);
  }
}

void Conductor::on(const Restored& restored, const Address& from) {
  if (restored.attempt != attempt_) return;
  if (!restored.problem.empty()) return problem(restored.problem);
  restored_.insert(from);
  if (restored_.size() == holders_.size()) begin();
}

void Conductor::begin() {
  run_began_us_ = context_.now_us();
  report("ready", nlohmann::json{{"kind", "ready"}, {"version", state_.version}, {"attempt", attempt_}}.dump());
  if (mode_ == RunMode::evaluate || mode_ == RunMode::experts) return start_evaluation();
  if (mode_ == RunMode::generate) return context_.post(kRollout, StartEvaluation{state_.version, attempt_});
  if (mode_ == RunMode::answers) return start_answers();
  go_on();
}

// A pause acts between steps: nothing is begun, but for the steps that it allows.
bool Conductor::holds() {
  held_ = paused_ && mode_ == RunMode::train && !last_decided_ && allowed_ == 0;
  return held_;
}

void Conductor::go_on() {
  if (holds()) return;
  if (state_.version > recover_.version || last_decided_) return next();
  // Of a version that was saved before it was evaluated; and what answers say may end the run.
  if (state_.version > 0 && evaluation_due()) return start_evaluation();
  if (answers_due()) return start_answers();
  start_step();
}

void Conductor::start_step() {
  if (allowed_ > 0) --allowed_;
  step_began_us_ = context_.now_us();
  if (config_.has_rollouts()) return lead_rollouts();
  context_.post(kLoader, StartStep{state_.version, attempt_});
}

void Conductor::start_evaluation() {
  evaluation_began_us_ = context_.now_us();
  evaluating_ = true;
  evaluation_heard_.clear();
  evaluation_losses_.clear();
  evaluation_counts_.clear();
  evaluation_targets_ = evaluation_answers_ = 0;
  evaluated_version_ = state_.version;
  context_.post(kLoader, StartEvaluation{state_.version, attempt_});
}

void Conductor::on(const StepPlan& plan, const Address&) {
  if (plan.attempt != attempt_) return;
  if (plan.kind == WorkKind::evaluate) {
    evaluation_plan_ = plan;
    return finish_evaluation();
  }
  plan_ = plan;
  try_decide();
}

void Conductor::on(const Vote& vote, const Address& from) {
  if (vote.step != state_.version || (vote.attempt != attempt_ && !mutant(Mutant::vote_of_old_attempt))) return;
  votes_[from] = vote;
  try_decide();
}

// The step is committed when the last vote is in.
void Conductor::try_decide() {
  if (!plan_ || votes_.size() + (mutant(Mutant::decided_before_last_vote) ? 1 : 0) < owners_.size() || finished_)
    return;
  if (config_.has_rollouts() && !rollouts_durable()) return;
  StepOutcome outcome = decide(config_, state_, *plan_, votes_);
  if (outcome.problem.empty()) outcome.problem = gap_problem(*plan_, outcome.losses);
  if (!outcome.problem.empty()) return problem(outcome.problem);
  Decision& d = outcome.decision;
  if (d.verdict == Verdict::stop)
    return problem(
        fmt::format("step {}: the loss is not finite or spiked too often (loss {}, gradient norm {}); the policy is to "
                    "stop; resume from the last checkpoint with a lower learning rate",
                    d.step, outcome.losses.loss, d.gradient_norm));
  if (!outcome.reason.empty()) reason_ = outcome.reason;
  look_at_allowance();
  d.last = d.last || stopping_;
  d.checkpoint = d.checkpoint || checkpoint_postponed_ || d.last;
  if (d.checkpoint && checkpoint_version_ >= 0) {
    if (d.last) return;  // decided when the checkpoint under way is done
    d.checkpoint = false;
    checkpoint_postponed_ = true;
  }
  const StepPlan plan = *plan_;
  const double seconds = static_cast<double>(context_.now_us() - step_began_us_) * 1e-6;
  state_ = advance(config_, state_, plan, outcome);
  state_.seconds += seconds;
  if (d.checkpoint) {
    checkpoint_postponed_ = false;
    checkpoint_version_ = state_.version;
    context_.post(kCheckpointer, SnapshotBegin{state_.version, state_json(state_)});
  }
  d.state = state_json(state_);
  // Told before anybody applies it: who takes this conductor's place finds a step that is done, and can't tell of it.
  const auto rollout = rollouts_ready_.find(config_.has_rollouts() ? rollout_of_step(config_.grpo, plan.step) : -1);
  report("step", step_json(config_, flops_per_token_, state_, plan, outcome,
                           {seconds, static_cast<double>(context_.now_us() - run_began_us_) * 1e-6},
                           rollout == rollouts_ready_.end() ? "" : rollout->second));
  for (const Address& holder : holders_) context_.post(holder, d);
  last_decided_ = d.last;
  if (config_.has_rollouts()) forget_learned();
  votes_.clear();
  plan_.reset();
  next();
}

// Hours and dollars: the step that is just done is the last when they are spent. What would still be evaluated costs too.
void Conductor::look_at_allowance() {
  if (recover_.allowance_us <= 0 || context_.now_us() - recovered_us_ < recover_.allowance_us) return;
  stopping_ = stopped_early_ = true;
  reason_ = "budget";
}

bool Conductor::evaluation_due() const {
  const int every = config_.evaluate.every_steps;
  return evaluated_version_ != state_.version && (last_decided_ || (every > 0 && state_.version % every == 0));
}

void Conductor::next() {
  if (holds()) return;
  if (evaluation_due() && !stopped_early_) return start_evaluation();
  if (answers_due() && !stopped_early_) return start_answers();
  if (!last_decided_) return start_step();
  const bool answers =
      config_.data.kind == "arithmetic" && config_.evaluate.exact_match_problems > 0 && !stopped_early_;
  answered_ = answered_ || !answers;
  if (!answered_ && !std::exchange(asked_, true)) context_.post(kRollout, StartEvaluation{state_.version, attempt_});
  finish_if_done();
}

void Conductor::on(const EvaluationLoss& loss, const Address& from) {
  if (loss.key.attempt != attempt_ || loss.key.step != evaluated_version_) return;
  evaluation_heard_.emplace(from, loss.key.microbatch);
  ++evaluation_answers_;
  evaluation_losses_[loss.key.microbatch] += loss.loss_sum;
  evaluation_targets_ += loss.targets;
  for (const ExpertCounts& c : loss.counts) {
    auto& sum = evaluation_counts_[c.layer];
    sum.resize(std::max(sum.size(), c.counts.size()));
    for (std::size_t e = 0; e < c.counts.size(); ++e) sum[e] += c.counts[e];
  }
  finish_evaluation();
}

void Conductor::finish_evaluation() {
  if (!evaluation_plan_ ||
      evaluation_answers_ < static_cast<std::int64_t>(evaluation_plan_->microbatches) * config_.layout.stages)
    return;
  evaluation_plan_.reset();
  evaluating_ = false;
  EvaluationTotals totals;
  for (const auto& [m, sum] : evaluation_losses_) totals.loss_sum += sum;
  totals.targets = evaluation_targets_;
  for (const auto& [layer, counts] : evaluation_counts_) totals.counts.push_back({layer, counts});
  const double loss = totals.targets > 0 ? totals.loss_sum / static_cast<double>(totals.targets) : 0;
  if (mode_ == RunMode::experts)
    report("experts", experts_json(totals.counts));
  else if (totals.targets > 0 || mode_ == RunMode::evaluate)
    report("evaluation", evaluation_json(state_.version, totals,
                                         static_cast<double>(context_.now_us() - evaluation_began_us_) * 1e-6));
  if (mode_ == RunMode::evaluate || mode_ == RunMode::experts) {
    answered_ = true;
    last_decided_ = true;
    return finish_if_done();
  }
  const bool kept = checkpointed_.contains(state_.version) || checkpoint_version_ == state_.version;
  if (kept && totals.targets > 0 && std::isfinite(loss) &&
      (state_.best_evaluation == 0 || loss < state_.best_evaluation)) {
    state_.best_evaluation = loss;
    state_.best_version = state_.version;
    post_best();
  }
  next();
}

void Conductor::post_best() {
  context_.post(kCheckpointer, Report{"best", nlohmann::json{{"version", state_.best_version}}.dump()});
}

void Conductor::on(const CheckpointDone& done, const Address&) {
  if (done.version != checkpoint_version_) return;
  checkpoint_version_ = -1;
  if (done.problem.empty()) checkpointed_.insert(done.version);
  report(
      "checkpoint",
      nlohmann::json{{"kind", "checkpoint"}, {"version", done.version}, {"path", done.path}, {"problem", done.problem}}
          .dump());
  try_decide();
  finish_if_done();
}

void Conductor::on(const Report& written, const Address&) {
  if (written.kind == "problem") return report(written.kind, written.json);
  report(written.kind, written.json);
  answered_ = true;
  if (mode_ == RunMode::generate) last_decided_ = true;
  finish_if_done();
}

void Conductor::on(const Pause& pause, const Address&) {
  paused_ = pause.on;
  allowed_ = pause.steps;
  if ((!paused_ || allowed_ > 0) && std::exchange(held_, false)) go_on();
}

// A person wants to stop: the step under way, or the one that a pause held back, is finished and saved.
void Conductor::on(const Stop& stop, const Address& from) {
  stopping_ = stopped_early_ = true;
  reason_ = stop.reason;
  on(Pause{false}, from);
  if (mode_ != RunMode::train) {
    last_decided_ = answered_ = true;
    finish_if_done();
  }
}

void Conductor::finish_if_done() {
  if (finished_ || !last_decided_ || !answered_ || checkpoint_version_ >= 0) return;
  finished_ = true;
  report("finished", nlohmann::json{{"kind", "finished"},
                                    {"version", state_.version},
                                    {"tokens", state_.tokens},
                                    {"seconds", state_.seconds},
                                    {"reason", reason_}}
                         .dump());
}

}  // namespace troupe
