#include "actors/rollout_buffer.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "actors/answers.h"
#include "actors/metrics.h"
#include "actors/rules/placement.h"
#include "actors/tasks/task_text.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"

namespace troupe {

namespace {

constexpr Address kConductor{Role::conductor, 0}, kLoader{Role::loader, 0};
constexpr std::int64_t kAnswers = -1;  // the place of an evaluation among what is collected

// Microbatches to be scored have numbers of their own: several rollouts may be scored by one version.
int score_base(const Config& config, std::int64_t rollout) {
  return static_cast<int>(rollout % 1024) * config.grpo.updates_per_rollout * config.train.microbatches;
}

bool same_source(const StartRollout& a, const StartRollout& b) {
  return a.kind == b.kind && a.rollout == b.rollout && a.attempt == b.attempt && a.version == b.version &&
         a.digest == b.digest;
}

}  // namespace

RolloutBuffer::RolloutBuffer(const Context& context, const Config& config, std::shared_ptr<const TaskSet> tasks,
                             std::string run_folder, CollectedAnswers* sink)
    : context_(context), config_(config), tasks_(std::move(tasks)), run_folder_(std::move(run_folder)), sink_(sink) {}

void RolloutBuffer::problem(const std::string& sentence) { context_.post(kConductor, problem_report(sentence)); }

void RolloutBuffer::on(const Restore& restore, const Address&) {
  attempt_ = restore.attempt;
  version_ = restore.version;
  collecting_.clear();
  scoring_.clear();
  writing_.clear();  // those on disk are the ones that count
}

void RolloutBuffer::on(const StartRollout& start, const Address&) {
  if (start.attempt != attempt_) return;
  version_ = std::max(version_, start.version);
  Collecting one;
  one.of = start;
  one.begun_us = context_.now_us();
  if (start.kind == WorkKind::evaluate) {
    auto& place = collecting_[kAnswers] = std::move(one);
    return ask_answers(place);
  }
  if (held(start)) return;
  auto& place = collecting_[start.rollout] = std::move(one);
  ask_round(place);
}

// It was sampled before: the journal has it.
bool RolloutBuffer::held(const StartRollout& start) {
  const std::string path = journal_folder(run_folder_, start.rollout) + "/answers.jsonl";
  if (run_folder_.empty() || !std::filesystem::exists(path)) return false;
  try {
    RolloutRecord record = read_journal(path);
    if (record.version != start.version || record.digest != start.digest)
      throw Error(
          "{}: was sampled by version {} with digest {:016x}, the run needs version {} with digest {:016x}: the "
          "folder is another run's; remove its rollouts to sample them again",
          path, record.version, record.digest, start.version, start.digest);
    log_info("event=rollout_from_journal rollout={} version={}", start.rollout, record.version);
    deliver(start, record);
    context_.post(kConductor, RolloutDone{start, true, rollout_json(config_, record)});
  } catch (const Error& error) {
    problem(error.what());
  }
  return true;
}

void RolloutBuffer::ask(const StartRollout& of, int first, int prompts, int samples, double temperature, double top_p) {
  for (int r = 0; r < config_.layout.replicas; ++r)
    context_.post(
        {Role::rollout, static_cast<std::uint32_t>(r)},
        SamplePrompts{of, first, prompts, samples, static_cast<float>(temperature), static_cast<float>(top_p)});
}

void RolloutBuffer::ask_round(Collecting& one) {
  const int prompts = prompts_per_round(config_);
  one.expected += static_cast<std::size_t>(prompts * config_.grpo.group_size);
  ask(one.of, one.rounds * prompts, prompts, config_.grpo.group_size, config_.grpo.temperature, config_.grpo.top_p);
  ++one.rounds;
}

// Held-out problems: some answers at a temperature, and the greedy one.
void RolloutBuffer::ask_answers(Collecting& one) {
  const EvaluateConfig& e = config_.evaluate;
  one.expected = static_cast<std::size_t>(e.problems) * static_cast<std::size_t>(e.samples + 1);
  if (sink_ != nullptr) *sink_ = CollectedAnswers{one.expected, 0, {}, {}};
  if (e.samples > 0) ask(one.of, 0, e.problems, e.samples, e.temperature, e.top_p);
  ask(one.of, 0, e.problems, 1, 0, 1);
}

void RolloutBuffer::on(const Judged& judged, const Address&) {
  const StartRollout& of = judged.sampled.of;
  if (of.attempt != attempt_) return;
  const auto found = collecting_.find(of.kind == WorkKind::evaluate ? kAnswers : of.rollout);
  if (found == collecting_.end()) return;
  Collecting& one = found->second;
  if (!same_source(of, one.of))
    return problem(
        fmt::format("answer {} to prompt {} of rollout {} was sampled by version {} with digest {:016x}, "
                    "asked for was version {} with digest {:016x}; nothing was learned from it",
                    judged.sampled.sample, judged.sampled.prompt, of.rollout, of.version, of.digest, one.of.version,
                    one.of.digest));
  auto& into = judged.sampled.greedy ? one.greedy : one.answers;
  into[{judged.sampled.prompt, judged.sampled.sample}] = answer_of(config_, judged);
  if (sink_ != nullptr && of.kind == WorkKind::evaluate) sink_->judged = one.answers.size() + one.greedy.size();
  if (one.answers.size() + one.greedy.size() == one.expected) collected(one);
}

void RolloutBuffer::collected(Collecting& one) {
  const StartRollout of = one.of;
  if (of.kind == WorkKind::evaluate) {
    report_answers(one);
    collecting_.erase(kAnswers);
    return;
  }
  RolloutRecord record;
  record.rollout = of.rollout;
  record.version = of.version;
  record.digest = of.digest;
  record.rounds = one.rounds;
  record.seconds = static_cast<double>(context_.now_us() - one.begun_us) * 1e-6;
  for (const auto& [key, answer] : one.answers) record.answers.push_back(answer);
  const bool last = !config_.grpo.dynamic_sampling || one.rounds >= config_.grpo.sampling_rounds_max;
  if (!choose_groups(config_, last, record)) return ask_round(one);
  collecting_.erase(of.rollout);
  score(of, std::move(record));
}

// By the same weights a token has one log-probability: the step itself sees to that when it learns at once; where it
// learns later the first microbatch is scored while the weights are there.
void RolloutBuffer::score(const StartRollout& of, RolloutRecord&& record) {
  Scoring& one = scoring_[of.rollout] = Scoring{of, std::move(record), {}};
  if (config_.grpo.rollout_lag > 0) send_to_score(one, WorkKind::score, 0);
  for (int update = 0; update < config_.grpo.updates_per_rollout && config_.has_reference(); ++update)
    send_to_score(one, WorkKind::reference, update);
  if (!one.awaited.empty()) return;
  complete(of, one.record);
  scoring_.erase(of.rollout);
}

void RolloutBuffer::send_to_score(Scoring& one, WorkKind kind, int update) {
  for (TokenBatch& batch : batches_of(config_, *tasks_, one.record, update, context_.pool())) {
    if (kind == WorkKind::score && batch.key.microbatch > 0) break;
    batch.key.kind = kind;
    batch.key.step = one.of.version;
    batch.key.attempt = one.of.attempt;
    batch.key.microbatch += update * config_.train.microbatches + score_base(config_, one.of.rollout);
    one.awaited.emplace(kind, batch.key.microbatch);
    context_.post(kLoader, std::move(batch));
  }
}

void RolloutBuffer::on(const Scored& scored, const Address&) {
  if (scored.key.attempt != attempt_) return;
  const auto found = std::find_if(scoring_.begin(), scoring_.end(), [&](const auto& entry) {
    return entry.second.awaited.contains({scored.key.kind, scored.key.microbatch});
  });
  if (found == scoring_.end()) return;
  Scoring& one = found->second;
  if (const std::string wrong = take_scores(one, scored); !wrong.empty()) return problem(wrong);
  one.awaited.erase({scored.key.kind, scored.key.microbatch});
  if (!one.awaited.empty()) return;
  complete(one.of, one.record);
  scoring_.erase(found);
}

// The rows with a target stand in the order of the answers' tokens.
std::string RolloutBuffer::take_scores(Scoring& one, const Scored& scored) const {
  const int number = scored.key.microbatch - score_base(config_, one.of.rollout),
            microbatches = config_.train.microbatches;
  const auto members = members_of(config_, one.record, number / microbatches);
  const float* row = scored.logprobs.as<float>();
  for (const std::size_t i : members[static_cast<std::size_t>(number % microbatches)]) {
    RolloutAnswer& a = one.record.answers[i];
    row += tasks_->text.prompt(problem_of(config_, *tasks_, true, one.record.rollout, a.prompt)).size() - 1;
    const std::vector<float> own(row, row + a.tokens.size());
    row += a.tokens.size();
    if (scored.key.kind == WorkKind::reference) {
      a.reference = own;
      continue;
    }
    one.record.checked += static_cast<std::int64_t>(own.size());
    if (std::memcmp(own.data(), a.logprobs.data(), own.size() * sizeof(float)) != 0)
      return fmt::format(
          "the log-probabilities of answer {} to prompt {} of rollout {} were recomputed with other bits "
          "than recorded at sampling, by the same weights (version {}); nothing was learned from it; this "
          "is an error in the program or in memory: resume from the last checkpoint",
          a.sample, a.prompt, one.of.rollout, one.of.version);
  }
  return "";
}

void RolloutBuffer::complete(const StartRollout& of, const RolloutRecord& record) {
  deliver(of, record);
  RolloutDone done{of, false, rollout_json(config_, record)};
  context_.post(kConductor, done);
  done.durable = true;
  if (run_folder_.empty()) return context_.post(kConductor, std::move(done));
  keep(record);
  writing_[next_token_] = std::move(done);
  context_.disk().report(context_.handle(), next_token_++);
}

// The loader gets the batches of every step that the rollout feeds.
void RolloutBuffer::deliver(const StartRollout& of, const RolloutRecord& record) {
  for (int update = 0; update < config_.grpo.updates_per_rollout; ++update) {
    for (TokenBatch& batch : batches_of(config_, *tasks_, record, update, context_.pool())) {
      batch.key.attempt = of.attempt;
      context_.post(kLoader, std::move(batch));
    }
  }
}

void RolloutBuffer::keep(const RolloutRecord& record) {
  const std::string folder = journal_folder(run_folder_, record.rollout), partial = folder + ".partial";
  Disk& disk = context_.disk();
  disk.make_folder(partial);
  disk.write_text(partial + "/answers.jsonl", journal_text(config_, *tasks_, record));
  disk.commit_folder(partial, folder);
}

void RolloutBuffer::on(const DiskDone& done, const Address&) {
  const auto found = writing_.find(done.token);
  if (found == writing_.end()) return;
  RolloutDone written = std::move(found->second);
  writing_.erase(found);
  if (!done.problem.empty())
    return problem(
        fmt::format("rollout {} can't be written: {}; make room and resume", written.of.rollout, done.problem));
  context_.post(kConductor, std::move(written));
}

void RolloutBuffer::report_answers(Collecting& one) {
  std::vector<RolloutAnswer> sampled, greedy;
  for (auto& [key, answer] : one.answers) sampled.push_back(std::move(answer));
  for (auto& [key, answer] : one.greedy) greedy.push_back(std::move(answer));
  if (sink_ != nullptr) {
    sink_->sampled = std::move(sampled);
    sink_->greedy = std::move(greedy);
    return context_.post(kConductor, RolloutDone{one.of, true, R"({"kind":"answers"})"});
  }
  context_.post(kConductor, RolloutDone{one.of, true, answers_json(config_, *tasks_, one.of.version, sampled, greedy)});
}

}  // namespace troupe
