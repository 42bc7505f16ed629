// RolloutRecord: a rollout as a value: every answer with its tokens, the log-probabilities recorded at sampling, its
// verdict, and the weights that wrote it. Its journal is what a resumed run reads and what a person reads: one JSON line
// an answer. What a step learns from is a pure function of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "actors/config.h"
#include "actors/tasks/task_text.h"
#include "messages/message.h"

namespace troupe {

struct RolloutAnswer {
  std::int32_t prompt = 0, sample = 0;
  bool truncated = false, correct = false, formatted = false;
  double reward = 0;
  std::string detail;
  std::vector<std::int32_t> tokens, kept;
  std::vector<float> logprobs;
  std::vector<float> reference;  // log-probabilities by the reference policy; empty: there is none
  friend bool operator==(const RolloutAnswer&, const RolloutAnswer&) = default;
};

struct RolloutRecord {
  std::int64_t rollout = 0, version = 0;
  std::uint64_t digest = 0;
  int rounds = 1;                        // of prompts that were asked
  double seconds = 0;                    // from the first prompt asked to the last verdict; not in the journal
  std::int64_t checked = 0;              // log-probabilities recomputed when they were sampled, to the same bits
  int groups_seen = 0, groups_flat = 0;  // all that were sampled; those whose rewards are all equal
  std::vector<RolloutAnswer> answers;    // by prompt and sample: whole groups
  friend bool operator==(const RolloutRecord&, const RolloutRecord&) = default;
};

RolloutAnswer answer_of(const Config& config, const Judged& judged);

// The first prompts_per_round() groups in prompt order, with dynamic sampling those that teach something; if there are
// fewer, the first of the others fill up. REQUIRES: answers by prompt and sample, whole groups. False, and nothing is
// changed: another round may find more.
bool choose_groups(const Config& config, bool last_round, RolloutRecord& record);

std::string journal_text(const Config& config, const TaskSet& tasks, const RolloutRecord& record);
// Throws Error with file and line.
RolloutRecord read_journal(const std::string& path);
std::string journal_folder(const std::string& run_folder, std::int64_t rollout);

// The microbatches of one update (0..updates_per_rollout - 1): keys without an attempt.
std::vector<TokenBatch> batches_of(const Config& config, const TaskSet& tasks, const RolloutRecord& record, int update,
                                   PayloadPool& pool);

// Whose answers each of these microbatches holds, as places in record.answers, in order.
std::vector<std::vector<std::size_t>> members_of(const Config& config, const RolloutRecord& record, int update);

// What a rollout was like, as JSON.
std::string rollout_json(const Config& config, const RolloutRecord& record);

}  // namespace troupe
