#include "actors/rollout.h"

#include <algorithm>

#include "actors/data/arithmetic.h"
#include "actors/data/tokenizer.h"
#include "actors/metrics.h"
#include "actors/rules/placement.h"
#include "actors/tasks/task_text.h"
#include "kernels/base/random.h"

namespace troupe {

namespace {

constexpr Address kConductor{Role::conductor, 0}, kJudge{Role::judge, 0};
constexpr std::size_t kBatchRowsMin = 16;  // fewer rows in a batch would read all weights for too little

}  // namespace

// What goes to the first stage together.
struct Rollout::Batch {
  std::vector<std::int32_t> ids, positions, spans, cache_rows, sample_rows, counters, forks;
  Asked asked;
};

Rollout::Rollout(const Context& context, const Config& config, int replica, std::shared_ptr<const TaskSet> tasks,
                 GenerationRequest request, GenerationResult* sink)
    : context_(context),
      config_(config),
      replica_(replica),
      tasks_(std::move(tasks)),
      request_(std::move(request)),
      sink_(sink != nullptr ? sink : &own_),
      places_(static_cast<std::size_t>(config.generate.sequences_max)) {}

void Rollout::on(const Restore& restore, const Address&) {
  attempt_ = restore.attempt;
  version_ = restore.version;
  jobs_.clear();
  asked_.clear();
  places_.assign(places_.size(), Place{});
}

// ---- Jobs -----------------------------------------------------------------------------------------------------------

void Rollout::on(const StartEvaluation& start, const Address&) {
  version_ = start.version;
  if (request_.prompts.empty()) {
    const Tokenizer bytes;
    for (int i = 0; i < config_.evaluate.exact_match_problems; ++i)
      request_.prompts.push_back(
          bytes.encode(make_problem(config_.data, config_.train.seed, static_cast<std::uint64_t>(i), true).prompt));
    request_.stop_token = '\n';
    request_.tokens_max = config_.generate_length();
  }
  const std::size_t n = request_.prompts.size();
  *sink_ = {};
  sink_->tokens.resize(n), sink_->logprobs.resize(n), sink_->logits.resize(n);
  jobs_.push_back(job_of_request());
  begin_job();
}

void Rollout::on(const SamplePrompts& prompts, const Address&) {
  if (prompts.of.attempt != attempt_) return;
  version_ = prompts.of.version;
  jobs_.push_back(job_of(prompts));
  if (jobs_.size() == 1) begin_job();
}

Rollout::Job Rollout::job_of_request() const {
  Job job;
  job.how = request_;
  job.how.prompts.clear();
  for (std::size_t i = 0; i < request_.prompts.size(); ++i)
    job.prompts.push_back({static_cast<std::int32_t>(i), request_.prompts[i], 0});
  return job;
}

// Every replica's rollout has the prompts whose number is its own modulo the replicas.
Rollout::Job Rollout::job_of(const SamplePrompts& prompts) const {
  const bool train = prompts.of.kind == WorkKind::train;
  Job job;
  job.of = prompts;
  job.samples = prompts.samples;
  job.how.temperature = prompts.temperature;
  job.how.top_p = prompts.top_p;
  job.how.stop_token = tasks_->text.end_token();
  job.how.tokens_max = config_.answer_tokens_max();
  job.how.seed = random_word(random_key(config_.train.seed, train ? "rollout" : "answers"),
                             static_cast<std::uint64_t>(train ? prompts.of.rollout : 0));
  job.want_kept = train && config_.truncates();
  for (std::int32_t p = prompts.first_prompt; p < prompts.first_prompt + prompts.prompts; ++p) {
    if (p % config_.layout.replicas != replica_) continue;
    job.prompts.push_back({p, tasks_->text.prompt(problem_of(config_, *tasks_, train, prompts.of.rollout, p)), 0});
  }
  return job;
}

void Rollout::begin_job() {
  while (!jobs_.empty() && jobs_.front().answers() == 0) end_job();
  if (!jobs_.empty()) go_on();
}

void Rollout::end_job() {
  const bool own = !jobs_.front().of;
  jobs_.pop_front();
  if (!own) return;
  sink_->done = true;
  if (sink_ == &own_) return report_arithmetic();
  context_.post(kConductor, Report{"generation", "{}"});
}

void Rollout::report_arithmetic() {
  const Tokenizer bytes;
  std::vector<WrittenAnswer> answers;
  for (std::size_t i = 0; i < request_.prompts.size(); ++i) {
    const Problem problem = make_problem(config_.data, config_.train.seed, i, true);
    const std::string text = bytes.decode(own_.tokens[i]);
    answers.push_back({problem.prompt, text, problem.answer, answer_of(text) == problem.answer});
  }
  context_.post(kConductor, Report{"exact_match", exact_match_json(answers)});
}

// ---- Places ---------------------------------------------------------------------------------------------------------

// Another answer to the same prompt, that has read it if `read`, and still has its place.
std::optional<std::size_t> Rollout::sibling(std::size_t prompt, bool read) const {
  for (std::size_t p = 0; p < places_.size(); ++p) {
    const auto& sequence = places_[p].sequence;
    if (sequence && sequence->prompt == prompt && (!read || !sequence->tokens.empty())) return p;
  }
  return std::nullopt;
}

// The place of the next answer to this prompt, a copy of `from` up to the prompt's last token, or read anew.
void Rollout::begin(std::size_t place, std::size_t prompt, std::optional<std::size_t> from) {
  Prompt& of = jobs_.front().prompts[prompt];
  Sequence s;
  s.prompt = prompt;
  s.sample = of.begun++;
  s.next = of.tokens;
  if (from && of.tokens.size() > 1) {
    s.fork = true;
    s.forked_from = *from;
    ++places_[*from].forks;
    s.cached = static_cast<std::int32_t>(of.tokens.size()) - 1;
    s.next = {of.tokens.back()};
  }
  places_[place].sequence = std::move(s);
}

// Places for the answers to prompts that were read; those of prompts that are being read are kept for them; what is left
// reads the next prompts.
void Rollout::fill_places() {
  Job& job = jobs_.front();
  std::vector<std::size_t> free;
  for (std::size_t p = places_.size(); p-- > 0;)
    if (places_[p].free()) free.push_back(p);
  std::size_t kept = 0;
  for (std::size_t prompt = 0; prompt < job.opened; ++prompt) {
    while (job.prompts[prompt].begun < job.samples && !free.empty()) {
      const auto from = sibling(prompt, true);
      if (!from && sibling(prompt, false)) break;
      begin(free.back(), prompt, from);
      free.pop_back();
    }
    kept += static_cast<std::size_t>(job.samples - job.prompts[prompt].begun);
  }
  for (; job.opened < job.prompts.size() && free.size() > kept; ++job.opened) {
    begin(free.back(), job.opened, std::nullopt);
    free.pop_back();
    kept += static_cast<std::size_t>(job.samples) - 1;
  }
}

void Rollout::go_on() {
  fill_places();
  while (static_cast<int>(asked_.size()) < config_.generate_batches() && send()) {
  }
}

// One batch: this batch's share of the sequences that can go on. How they are put together changes none of their bits.
bool Rollout::send() {
  const auto living = static_cast<std::size_t>(
      std::count_if(places_.begin(), places_.end(), [](const Place& p) { return p.sequence.has_value(); }));
  const auto batches = static_cast<std::size_t>(config_.generate_batches());
  const std::size_t share = std::max((living + batches - 1) / batches, kBatchRowsMin);
  Batch batch;
  for (std::size_t p = 0; p < places_.size() && batch.asked.places.size() < share; ++p) {
    if (!places_[p].sequence || places_[p].sequence->next.empty()) continue;
    if (static_cast<int>(batch.ids.size() + places_[p].sequence->next.size()) > config_.microbatch_rows()) break;
    add(batch, p);
  }
  if (batch.asked.places.empty()) return false;
  post(std::move(batch));
  return true;
}

void Rollout::add(Batch& batch, std::size_t place) {
  const Job& job = jobs_.front();
  Sequence& s = *places_[place].sequence;
  const auto count = static_cast<std::int32_t>(s.next.size()), row = static_cast<std::int32_t>(batch.ids.size());
  const std::int32_t length = config_.generate_length(), base = static_cast<std::int32_t>(place) * length;
  if (s.fork) {
    batch.forks.insert(batch.forks.end(), {static_cast<std::int32_t>(s.forked_from) * length, base, s.cached});
    batch.asked.forked_from.push_back(s.forked_from);
    s.fork = false;
  }
  batch.spans.insert(batch.spans.end(), {row, count, base, s.cached + count});
  for (std::int32_t t = 0; t < count; ++t) {
    batch.ids.push_back(s.next[static_cast<std::size_t>(t)]);
    batch.positions.push_back(s.cached + t);
    batch.cache_rows.push_back(base + s.cached + t);
  }
  batch.sample_rows.push_back(row + count - 1);
  batch.counters.insert(batch.counters.end(),
                        {job.prompts[s.prompt].number * job.samples + s.sample, s.cached + count});
  s.cached += count;
  s.next.clear();
  batch.asked.places.push_back(place);
}

void Rollout::post(Batch&& batch) {
  const Job& job = jobs_.front();
  PayloadPool& pool = context_.pool();
  GenerateBatch message;
  message.key = {WorkKind::generate, Direction::forward, version_, attempt_, sent_, 0, 0};
  message.rows = static_cast<std::int32_t>(batch.ids.size());
  message.spans_count = static_cast<std::int32_t>(batch.spans.size() / 4);
  message.samples = static_cast<std::int32_t>(batch.sample_rows.size());
  message.temperature = job.how.temperature;
  message.top_p = job.how.top_p;
  message.seed = random_key(job.how.seed, "sample");
  message.want_logits = job.how.want_logits;
  message.want_kept = job.want_kept;
  message.ids = to_payload(pool, batch.ids);
  message.positions = to_payload(pool, batch.positions);
  message.spans = to_payload(pool, batch.spans);
  message.cache_rows = to_payload(pool, batch.cache_rows);
  message.sample_rows = to_payload(pool, batch.sample_rows);
  message.counters = to_payload(pool, batch.counters);
  message.forks_count = static_cast<std::int32_t>(batch.forks.size() / 3);
  if (!batch.forks.empty()) message.forks = to_payload(pool, batch.forks);
  asked_[sent_++] = std::move(batch.asked);
  context_.post(stage_address(config_, replica_, 0), std::move(message));
}

// ---- Answers --------------------------------------------------------------------------------------------------------

void Rollout::on(const Generated& generated, const Address&) {
  const auto batch = asked_.find(generated.key.microbatch);
  if (generated.key.attempt != attempt_ || batch == asked_.end()) return;
  const Asked asked = std::move(batch->second);
  asked_.erase(batch);
  for (const std::size_t place : asked.forked_from) --places_[place].forks;
  for (std::size_t row = 0; row < asked.places.size(); ++row) take(asked.places[row], generated, row);
  if (jobs_.front().finished < jobs_.front().answers()) return go_on();
  end_job();
  begin_job();
}

void Rollout::take(std::size_t place, const Generated& generated, std::size_t row) {
  Sequence& s = *places_[place].sequence;
  const std::int32_t token = generated.tokens.as<std::int32_t>()[row];
  s.tokens.push_back(token);
  s.logprobs.push_back(generated.logprobs.as<float>()[row]);
  if (jobs_.front().want_kept) {
    const auto words = static_cast<std::size_t>(config_.kept_words());
    const auto* kept = generated.kept.as<std::int32_t>() + row * words;
    s.kept.insert(s.kept.end(), kept, kept + words);
  }
  if (jobs_.front().how.want_logits) {
    const auto size = static_cast<std::size_t>(config_.model.vocab_size);
    const float* logits = generated.logits.as<float>() + row * size;
    auto& all = sink_->logits[s.prompt];
    all.insert(all.end(), logits, logits + size);
  }
  s.next = {token};
  if (!jobs_.front().of) {
    sink_->begun += s.tokens.size() == 1 ? 1 : 0;
    ++sink_->written;
  }
  if (ends(s, token)) finish(place);
}

bool Rollout::ends(const Sequence& s, std::int32_t token) const {
  return token == jobs_.front().how.stop_token || static_cast<int>(s.tokens.size()) >= jobs_.front().how.tokens_max ||
         s.cached + 1 >= config_.generate_length();
}

void Rollout::finish(std::size_t place) {
  Sequence s = std::move(*places_[place].sequence);
  places_[place].sequence.reset();
  Job& job = jobs_.front();
  ++job.finished;
  if (!job.of) {
    sink_->tokens[s.prompt] = std::move(s.tokens);
    sink_->logprobs[s.prompt] = std::move(s.logprobs);
    return;
  }
  const bool truncated = s.tokens.back() != job.how.stop_token;
  PayloadPool& pool = context_.pool();
  Sampled answer;
  answer.of = job.of->of;
  answer.prompt = job.prompts[s.prompt].number;
  answer.sample = s.sample;
  answer.greedy = job.of->temperature <= 0;
  answer.truncated = truncated;
  answer.tokens = to_payload(pool, s.tokens);
  answer.logprobs = to_payload(pool, s.logprobs);
  if (job.want_kept) answer.kept = to_payload(pool, s.kept);
  context_.post(kJudge, std::move(answer));
}

}  // namespace troupe
