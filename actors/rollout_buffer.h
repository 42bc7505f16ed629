// RolloutBuffer: has rollouts sampled and judged, and makes of each what its steps learn from. The law: an answer that
// other weights wrote than its rollout says (version, digest) reaches no gradient; what is learned depends on the
// answers by prompt and sample, never on their order of arrival; and before a step can follow, its rollout is on disk.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "actors/config.h"
#include "actors/node.h"
#include "actors/rollout_record.h"
#include "actors/wait.h"

namespace troupe {

// The answers of an evaluation, for a tool in the same process.
struct CollectedAnswers {
  std::size_t expected = 0, judged = 0;
  std::vector<RolloutAnswer> sampled, greedy;  // by problem and sample, when all are judged
};

class RolloutBuffer {
 public:
  // run_folder: where the journal goes; empty: nowhere. sink: where a tool reads an evaluation's answers; may be null.
  RolloutBuffer(const Context& context, const Config& config, std::shared_ptr<const TaskSet> tasks,
                std::string run_folder, CollectedAnswers* sink);

  void on(const Restore& restore, const Address& from);
  void on(const StartRollout& start, const Address& from);
  void on(const Judged& judged, const Address& from);
  void on(const Scored& scored, const Address& from);
  void on(const DiskDone& done, const Address& from);
  void on(const Stop&, const Address&) {}
  void waits(Waits& out) const;
  std::uint32_t attempt() const { return attempt_; }
  std::int64_t version() const { return version_; }

 private:
  using Key = std::pair<std::int32_t, std::int32_t>;  // prompt, sample
  // Being sampled.
  struct Collecting {
    StartRollout of;
    std::int64_t begun_us = 0;
    int rounds = 0;
    std::size_t expected = 0;
    std::map<Key, RolloutAnswer> answers, greedy;
  };
  // Sampled, and on its way through the stages once more: for the reference policy's log-probabilities, and where its step
  // comes later, for its own ones.
  struct Scoring {
    StartRollout of;
    RolloutRecord record;
    std::set<std::pair<WorkKind, std::int32_t>> awaited;  // by microbatch, counted over the rollout's updates
  };
  bool held(const StartRollout& start);
  void score(const StartRollout& of, RolloutRecord&& record);
  void send_to_score(Scoring& one, WorkKind kind, int update);
  std::string take_scores(Scoring& one, const Scored& scored) const;
  void complete(const StartRollout& of, const RolloutRecord& record);
  void ask_round(Collecting& one);
  void ask_answers(Collecting& one);
  void collected(Collecting& one);
  void deliver(const StartRollout& of, const RolloutRecord& record);
  void keep(const RolloutRecord& record);
  void report_answers(Collecting& one);
  void ask(const StartRollout& of, int first, int prompts, int samples, double temperature, double top_p);
  void problem(const std::string& sentence);

  Context context_;
  const Config& config_;
  std::shared_ptr<const TaskSet> tasks_;
  std::string run_folder_;
  CollectedAnswers* sink_;
  std::uint32_t attempt_ = 0;
  std::int64_t version_ = 0;
  std::map<std::int64_t, Collecting> collecting_;  // by rollout; evaluation: -1
  std::map<std::int64_t, Scoring> scoring_;        // by rollout
  std::uint64_t next_token_ = 1;
  std::map<std::uint64_t, RolloutDone> writing_;  // by token of the disk's report
};

}  // namespace troupe
