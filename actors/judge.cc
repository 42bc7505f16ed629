#include "actors/judge.h"

#include <utility>

#include "actors/jury.h"
#include "actors/metrics.h"
#include "actors/tasks/task_text.h"
#include "actors/tasks/verify.h"
#include "kernels/base/log.h"

namespace troupe {

namespace {
constexpr Address kConductor{Role::conductor, 0}, kBuffer{Role::rollout_buffer, 0};
}

Judge::Judge(const Context& context, const Config& config, std::shared_ptr<const TaskSet> tasks)
    : context_(context), config_(config), tasks_(std::move(tasks)) {}

void Judge::on(const Restore& restore, const Address&) {
  attempt_ = restore.attempt;
  version_ = restore.version;
  cases_.clear();
}

// An answer without an end is worth nothing, whatever it says.
void Judge::on(const Sampled& sampled, const Address&) {
  if (sampled.of.attempt != attempt_) return;
  version_ = sampled.of.version;
  if (sampled.truncated) return context_.post(kBuffer, Judged{sampled, 0, false, false, "no end"});
  const TaskProblem problem =
      problem_of(config_, *tasks_, sampled.of.kind == WorkKind::train, sampled.of.rollout, sampled.prompt);
  const std::uint64_t token = next_token_++;
  const std::string response = tasks_->text.answer(to_vector<std::int32_t>(sampled.tokens));
  Case& one = cases_[token] = {sampled, request_line(problem, response), 0};
  context_.jury().submit(context_.handle(), token, one.request);
}

void Judge::on(const JuryDone& done, const Address&) {
  const auto found = cases_.find(done.token);
  if (found == cases_.end()) return;  // of an attempt that is over
  if (!done.problem.empty()) return failed(done.token, done.problem);
  Score score;
  const std::string problem = read_verdict(done.verdict, score);
  if (!problem.empty()) score = {0, false, false, problem};
  decide(done.token, {found->second.sampled, score.reward, score.correct, score.formatted, score.detail});
}

void Judge::failed(std::uint64_t token, const std::string& problem) {
  Case& one = cases_.at(token);
  const StartRollout& of = one.sampled.of;
  log_warning("event=judge_failed rollout={} prompt={} sample={} failures={} problem=\"{}\"", of.rollout,
              one.sampled.prompt, one.sampled.sample, one.failures + 1, problem);
  if (++one.failures <= config_.judge.retries_max) return context_.jury().submit(context_.handle(), token, one.request);
  if (config_.judge.on_failure == "zero")
    return decide(token, {one.sampled, 0, false, false, "judge failed: " + problem});
  context_.post(kConductor, problem_report(fmt::format(
                                "the judge of answer {} to prompt {} of rollout {} failed {} times, last: {}; mend "
                                "judge.command, or set judge.on_failure = \"zero\", and resume",
                                one.sampled.sample, one.sampled.prompt, of.rollout, one.failures, problem)));
}

void Judge::decide(std::uint64_t token, Judged&& judged) {
  cases_.erase(token);
  context_.post(kBuffer, std::move(judged));
}

}  // namespace troupe
