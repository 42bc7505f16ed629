#include "actors/rollout_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "actors/data/corpus.h"
#include "actors/rules/grpo.h"
#include "actors/tasks/task_text.h"
#include "kernels/base/error.h"
#include "kernels/op.h"

namespace troupe {

using nlohmann::json;

namespace {

TaskProblem problem_of(const Config& config, const TaskSet& tasks, const RolloutRecord& record, std::int32_t prompt) {
  return problem_of(config, tasks, true, record.rollout, prompt);
}

}  // namespace

RolloutAnswer answer_of(const Config& config, const Judged& judged) {
  const Sampled& s = judged.sampled;
  RolloutAnswer a;
  a.prompt = s.prompt;
  a.sample = s.sample;
  a.truncated = s.truncated;
  a.correct = judged.correct;
  a.formatted = judged.formatted;
  a.detail = judged.detail;
  a.tokens = to_vector<std::int32_t>(s.tokens);
  a.logprobs = to_vector<float>(s.logprobs);
  a.kept = to_vector<std::int32_t>(s.kept);
  a.reward = judged.reward;
  if (s.of.kind == WorkKind::train)
    a.reward += overlong_penalty(static_cast<std::int64_t>(a.tokens.size()), config.answer_tokens_max(),
                                 config.grpo.overlong_tokens);
  return a;
}

bool choose_groups(const Config& config, bool last_round, RolloutRecord& record) {
  const auto size = static_cast<std::size_t>(config.grpo.group_size);
  const auto wanted = static_cast<std::size_t>(prompts_per_round(config));
  std::vector<std::size_t> useful, flat;  // first answers of groups
  for (std::size_t begin = 0; begin < record.answers.size(); begin += size) {
    std::vector<double> rewards;
    for (std::size_t i = begin; i < begin + size; ++i) rewards.push_back(record.answers[i].reward);
    (is_useful(rewards.data(), config.grpo.group_size) ? useful : flat).push_back(begin);
  }
  record.groups_seen = static_cast<int>(useful.size() + flat.size());
  record.groups_flat = static_cast<int>(flat.size());
  if (!config.grpo.dynamic_sampling) return true;
  if (useful.size() < wanted && !last_round) return false;
  useful.resize(std::min(useful.size(), wanted));
  for (std::size_t i = 0; useful.size() < wanted; ++i) useful.push_back(flat[i]);
  std::sort(useful.begin(), useful.end());
  std::vector<RolloutAnswer> chosen;
  for (const std::size_t begin : useful)
    for (std::size_t i = begin; i < begin + size; ++i) chosen.push_back(std::move(record.answers[i]));
  record.answers = std::move(chosen);
  return true;
}

std::string journal_text(const Config& config, const TaskSet& tasks, const RolloutRecord& record) {
  std::string text = json{{"rollout", record.rollout},
                          {"version", record.version},
                          {"digest", fmt::format("{:016x}", record.digest)},
                          {"rounds", record.rounds},
                          {"groups_seen", record.groups_seen},
                          {"groups_flat", record.groups_flat},
                          {"answers", record.answers.size()}}
                         .dump() +
                     "\n";
  for (const RolloutAnswer& a : record.answers) {
    const TaskProblem problem = problem_of(config, tasks, record, a.prompt);
    json line{{"prompt", a.prompt},
              {"sample", a.sample},
              {"task", problem.task},
              {"level", problem.level},
              {"question", problem.prompt},
              {"answer", problem.answer},
              {"response", tasks.text.answer(a.tokens)},
              {"reward", a.reward},
              {"correct", a.correct},
              {"formatted", a.formatted},
              {"truncated", a.truncated},
              {"detail", a.detail},
              {"tokens", a.tokens},
              {"logprobs", a.logprobs}};
    if (!a.kept.empty()) line["kept"] = a.kept;
    if (!a.reference.empty()) line["reference"] = a.reference;
    text += line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  }
  return text;
}

RolloutRecord read_journal(const std::string& path) {
  std::ifstream in(path);
  if (!in) throw Error("{}: can't be read, and the run can't go on without these samples", path);
  RolloutRecord record;
  std::string line;
  int number = 0;
  std::size_t expected = 0;
  try {
    for (; std::getline(in, line); ++number) {
      const json j = json::parse(line);
      if (number == 0) {
        record.rollout = j.at("rollout");
        record.version = j.at("version");
        record.digest = std::stoull(j.at("digest").get<std::string>(), nullptr, 16);
        record.rounds = j.at("rounds");
        record.groups_seen = j.at("groups_seen");
        record.groups_flat = j.at("groups_flat");
        expected = j.at("answers");
        continue;
      }
      RolloutAnswer a;
      a.prompt = j.at("prompt");
      a.sample = j.at("sample");
      a.truncated = j.at("truncated");
      a.correct = j.at("correct");
      a.formatted = j.at("formatted");
      a.reward = j.at("reward");
      a.detail = j.at("detail");
      a.tokens = j.at("tokens").get<std::vector<std::int32_t>>();
      a.logprobs = j.at("logprobs").get<std::vector<float>>();
      if (j.contains("reference")) a.reference = j.at("reference").get<std::vector<float>>();
      if (j.contains("kept")) a.kept = j.at("kept").get<std::vector<std::int32_t>>();
      record.answers.push_back(std::move(a));
    }
  } catch (const std::exception& error) {
    throw Error("{}:{}: not a line of a rollout: {}", path, number + 1, error.what());
  }
  if (record.answers.size() != expected || expected == 0)
    throw Error("{}: has {} answers of {}; remove its folder to sample them again", path, record.answers.size(),
                expected);
  return record;
}

std::string journal_folder(const std::string& run_folder, std::int64_t rollout) {
  return fmt::format("{}/rollouts/rollout-{:08}", run_folder, rollout);
}

namespace {

// One microbatch as it grows.
struct Growing {
  std::vector<std::int32_t> ids, targets, positions, spans, kept;
  std::vector<float> policy;
};

// Row t reads token t; the rows from the prompt's last on predict the answer. Its last token is read by no row.
void append(Growing& batch, const std::vector<std::int32_t>& prompt, const RolloutAnswer& a, double advantage,
            double weight, std::size_t kept_words) {
  const std::size_t first = prompt.size() - 1, rows = first + a.tokens.size();
  const auto begin = static_cast<std::int32_t>(batch.ids.size()), count = static_cast<std::int32_t>(rows);
  batch.spans.insert(batch.spans.end(), {begin, count, begin, count});
  for (std::size_t t = 0; t < rows; ++t) {
    const bool trained = t >= first;
    const std::size_t i = t - first;
    batch.ids.push_back(t < prompt.size() ? prompt[t] : a.tokens[i - 1]);
    batch.targets.push_back(trained ? a.tokens[i] : kNoTarget);
    batch.positions.push_back(static_cast<std::int32_t>(t));
    const float old = trained ? a.logprobs[i] : 0;
    const float reference = trained && !a.reference.empty() ? a.reference[i] : old;
    const float row[kPolicyInputs] = {old, reference, trained ? static_cast<float>(advantage) : 0,
                                      trained ? static_cast<float>(weight) : 0};
    batch.policy.insert(batch.policy.end(), row, row + kPolicyInputs);
    if (kept_words == 0) continue;
    for (std::size_t w = 0; w < kept_words; ++w) batch.kept.push_back(trained ? a.kept[i * kept_words + w] : -1);
  }
}

TokenBatch to_batch(const Growing& g, PayloadPool& pool) {
  TokenBatch batch;
  batch.sequences = 1;
  batch.length = static_cast<std::int32_t>(g.ids.size());
  batch.spans_count = static_cast<std::int32_t>(g.spans.size() / 4);
  batch.ids = to_payload(pool, g.ids);
  batch.targets = to_payload(pool, g.targets);
  batch.positions = to_payload(pool, g.positions);
  batch.spans = to_payload(pool, g.spans);
  batch.policy = to_payload(pool, g.policy);
  if (!g.kept.empty()) batch.kept = to_payload(pool, g.kept);
  return batch;
}

}  // namespace

std::vector<std::vector<std::size_t>> members_of(const Config& config, const RolloutRecord& record, int update) {
  const auto count = static_cast<std::size_t>(config.train.batch_sequences);
  const std::size_t each = count / static_cast<std::size_t>(config.train.microbatches);
  const std::vector<std::int64_t> order =
      order_of_updates(static_cast<std::int64_t>(record.answers.size()), config.grpo.updates_per_rollout,
                       config.train.seed, record.rollout);
  std::vector<std::vector<std::size_t>> members(static_cast<std::size_t>(config.train.microbatches));
  for (std::size_t i = 0; i < count; ++i)
    members[i / each].push_back(static_cast<std::size_t>(order[count * static_cast<std::size_t>(update) + i]));
  return members;
}

std::vector<TokenBatch> batches_of(const Config& config, const TaskSet& tasks, const RolloutRecord& record, int update,
                                   PayloadPool& pool) {
  std::vector<double> rewards;
  for (const RolloutAnswer& a : record.answers) rewards.push_back(a.reward);
  const std::vector<double> advantage = advantages(rewards, config.grpo.group_size, config.grpo);
  const std::vector<std::vector<std::size_t>> members = members_of(config, record, update);
  std::vector<std::int64_t> lengths;
  for (const auto& microbatch : members)
    for (const std::size_t i : microbatch)
      lengths.push_back(static_cast<std::int64_t>(record.answers[i].tokens.size()));
  const std::vector<double> weights = token_weights(lengths, config.grpo.reduction, config.generate_length());
  const auto words = static_cast<std::size_t>(config.kept_words());
  std::int64_t targets = 0;
  for (const std::int64_t length : lengths) targets += length;
  std::vector<TokenBatch> batches;
  std::size_t number = 0;  // among the step's answers
  for (const auto& microbatch : members) {
    Growing growing;
    for (const std::size_t at : microbatch) {
      const RolloutAnswer& a = record.answers[at];
      append(growing, tasks.text.prompt(problem_of(config, tasks, record, a.prompt)), a, advantage[at],
             weights[number++], words);
    }
    TokenBatch batch = to_batch(growing, pool);
    batch.key.step = record.rollout * config.grpo.updates_per_rollout + update;
    batch.key.microbatch = static_cast<std::int32_t>(batches.size());
    batch.target_tokens = targets;
    batches.push_back(std::move(batch));
  }
  return batches;
}

std::string rollout_json(const Config& config, const RolloutRecord& record) {
  const double answers = static_cast<double>(record.answers.size());
  double reward = 0, correct = 0, formatted = 0, truncated = 0, length = 0, longest = 0, logprob = 0;
  for (const RolloutAnswer& a : record.answers) {
    reward += a.reward / answers;
    correct += (a.correct ? 1 : 0) / answers;
    formatted += (a.formatted ? 1 : 0) / answers;
    truncated += (a.truncated ? 1 : 0) / answers;
    length += static_cast<double>(a.tokens.size()) / answers;
    longest = std::max(longest, static_cast<double>(a.tokens.size()));
    for (const float l : a.logprobs) logprob += static_cast<double>(l);
  }
  return json{
      {"kind", "rollout"},
      {"rollout", record.rollout},
      {"version", record.version},
      {"digest", fmt::format("{:016x}", record.digest)},
      {"answers", record.answers.size()},
      {"group_size", config.grpo.group_size},
      {"rounds", record.rounds},
      {"checked", record.checked},
      {"seconds", record.seconds},
      {"reward", reward},
      {"accuracy", correct},
      {"formatted", formatted},
      {"truncated", truncated},
      {"flat_groups", record.groups_seen > 0 ? static_cast<double>(record.groups_flat) / record.groups_seen : 0.0},
      {"length_mean", length},
      {"length_max", longest},
      {"logprob_sum", logprob}}
      .dump();
}

}  // namespace troupe
