#include "actors/rollout.h"

#include <algorithm>
#include <cstring>

#include "actors/data/arithmetic.h"
#include "actors/metrics.h"
#include "actors/rules/placement.h"
#include "kernels/base/random.h"

namespace troupe {

namespace {

constexpr Address kConductor{Role::conductor, 0};
constexpr std::size_t kBatchRowsMin = 16;  // fewer rows in a batch would read all weights for too little

// Batches under way at once: every thread of every stage has one, as far as there are slots.
std::size_t batches_max(const Config& config) {
  return static_cast<std::size_t>(std::min(config.slots(), config.layout.stages * std::max(1, config.device.threads)));
}

std::vector<std::int32_t> bytes_as_tokens(const std::string& text) {
  std::vector<std::int32_t> tokens;
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  return tokens;
}

std::string tokens_as_bytes(const std::vector<std::int32_t>& tokens) {
  std::string text;
  for (const std::int32_t t : tokens) text.push_back(static_cast<char>(t));
  return text;
}

Payload to_payload(PayloadPool& pool, const std::vector<std::int32_t>& values) {
  Payload payload = pool.take(values.size() * 4);
  std::memcpy(payload.data.get(), values.data(), values.size() * 4);
  return payload;
}

}  // namespace

Rollout::Rollout(const Context& context, const Config& config, GenerationRequest request, GenerationResult* sink)
    : context_(context), config_(config), request_(std::move(request)), sink_(sink != nullptr ? sink : &own_) {}

void Rollout::on(const Restore& restore, const Address&) {
  attempt_ = restore.attempt;
  version_ = restore.version;
  group_.clear();
  asked_.clear();
}

void Rollout::on(const StartEvaluation& start, const Address&) {
  version_ = start.version;
  if (request_.prompts.empty()) {
    for (int i = 0; i < config_.evaluate.exact_match_problems; ++i)
      request_.prompts.push_back(
          bytes_as_tokens(make_problem(config_.data, config_.train.seed, static_cast<std::uint64_t>(i), true).prompt));
    request_.stop_token = '\n';
    request_.tokens_max = config_.generate_length();
  }
  const std::size_t n = request_.prompts.size();
  *sink_ = GenerationResult{std::vector<std::vector<std::int32_t>>(n), std::vector<std::vector<float>>(n),
                            std::vector<std::vector<float>>(n), false};
  next_prompt_ = 0;
  begin_group();
}

// As many prompts as caches: those are decoded together, then the next ones.
void Rollout::begin_group() {
  group_.clear();
  while (next_prompt_ < request_.prompts.size() && static_cast<int>(group_.size()) < config_.generate.sequences_max) {
    Sequence s{next_prompt_, static_cast<int>(group_.size()), 0, request_.prompts[next_prompt_], false};
    CHECK(!s.next.empty() && static_cast<int>(s.next.size()) < config_.generate_length(),
          "prompt {} has {} tokens of {}", next_prompt_, s.next.size(), config_.generate_length());
    group_.push_back(std::move(s));
    ++next_prompt_;
  }
  if (group_.empty()) return finish();
  go_on();
}

void Rollout::go_on() {
  while (asked_.size() < batches_max(config_) && send()) {
  }
  if (asked_.empty()) begin_group();
}

// One batch: whole prompts, as many as fit a slot; when all are read, a token each of this batch's share of the
// sequences. False: nothing is ready. How sequences are put together changes none of their bits.
bool Rollout::send() {
  const auto unread = [](const Sequence& s) { return s.cached == 0; };
  const bool reading = std::any_of(group_.begin(), group_.end(), unread);
  const auto unfinished =
      static_cast<std::size_t>(std::count_if(group_.begin(), group_.end(), [](const Sequence& s) { return !s.done; }));
  const std::size_t share = (unfinished + batches_max(config_) - 1) / batches_max(config_);
  const std::size_t sequences_max = reading ? group_.size() : std::max(share, kBatchRowsMin);
  GenerateBatch batch;
  std::vector<std::int32_t> ids, positions, spans, cache_rows, sample_rows, counters;
  std::vector<std::size_t> asked;
  const int length = config_.generate_length();
  for (std::size_t i = 0; i < group_.size() && asked.size() < sequences_max; ++i) {
    Sequence& s = group_[i];
    if (!ready(s) || (reading && !unread(s))) continue;
    const auto count = static_cast<std::int32_t>(s.next.size());
    const auto row = static_cast<std::int32_t>(ids.size());
    if (row + count > config_.microbatch_rows()) break;
    spans.insert(spans.end(), {row, count, s.cache_slot * length, s.cached + count});
    for (std::int32_t t = 0; t < count; ++t) {
      ids.push_back(s.next[static_cast<std::size_t>(t)]);
      positions.push_back(s.cached + t);
      cache_rows.push_back(s.cache_slot * length + s.cached + t);
    }
    sample_rows.push_back(row + count - 1);
    counters.insert(counters.end(), {static_cast<std::int32_t>(s.prompt), s.cached + count});
    s.cached += count;
    s.next.clear();
    asked.push_back(i);
  }
  if (asked.empty()) return false;
  PayloadPool& pool = context_.pool();
  asked_[sent_] = std::move(asked);
  batch.key = {WorkKind::generate, Direction::forward, version_, attempt_, sent_++, 0, 0};
  batch.rows = static_cast<std::int32_t>(ids.size());
  batch.spans_count = static_cast<std::int32_t>(spans.size() / 4);
  batch.samples = static_cast<std::int32_t>(sample_rows.size());
  batch.temperature = request_.temperature;
  batch.top_p = request_.top_p;
  batch.seed = random_key(request_.seed, "sample");
  batch.want_logits = request_.want_logits;
  batch.ids = to_payload(pool, ids);
  batch.positions = to_payload(pool, positions);
  batch.spans = to_payload(pool, spans);
  batch.cache_rows = to_payload(pool, cache_rows);
  batch.sample_rows = to_payload(pool, sample_rows);
  batch.counters = to_payload(pool, counters);
  context_.post(stage_address(config_, 0, 0), std::move(batch));
  return true;
}

void Rollout::on(const Generated& generated, const Address&) {
  const auto batch = asked_.find(generated.key.microbatch);
  if (generated.key.attempt != attempt_ || batch == asked_.end()) return;
  const std::vector<std::size_t> asked = std::move(batch->second);
  asked_.erase(batch);
  const std::int64_t vocabulary = config_.model.vocab_size;
  for (std::size_t i = 0; i < asked.size(); ++i) {
    Sequence& s = group_[asked[i]];
    sink_->logprobs[s.prompt].push_back(generated.logprobs.as<float>()[i]);
    if (request_.want_logits) {
      const float* row = generated.logits.as<float>() + static_cast<std::int64_t>(i) * vocabulary;
      sink_->logits[s.prompt].insert(sink_->logits[s.prompt].end(), row, row + vocabulary);
    }
    s.done = !append(s, generated.tokens.as<std::int32_t>()[i]);
  }
  go_on();
}

// False: the answer is complete.
bool Rollout::append(Sequence& s, std::int32_t token) {
  auto& written = sink_->tokens[s.prompt];
  written.push_back(token);
  s.next = {token};
  return token != request_.stop_token && static_cast<int>(written.size()) < request_.tokens_max &&
         s.cached + 1 < config_.generate_length();
}

void Rollout::finish() {
  sink_->done = true;
  if (sink_ == &own_) return report_arithmetic();
  context_.post(kConductor, Report{"generation", "{}"});
}

void Rollout::report_arithmetic() {
  std::vector<WrittenAnswer> answers;
  for (std::size_t i = 0; i < request_.prompts.size(); ++i) {
    const Problem problem = make_problem(config_.data, config_.train.seed, i, true);
    const std::string text = tokens_as_bytes(own_.tokens[i]);
    answers.push_back({problem.prompt, text, problem.answer, answer_of(text) == problem.answer});
  }
  context_.post(kConductor, Report{"exact_match", exact_match_json(answers)});
}

}  // namespace troupe
