// Rollout: writes tokens. Forward batches with a key-value cache through the same stages, shards and kernels that
// train, so the log-probability that sampled a token is the one that training would compute.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "actors/config.h"
#include "actors/node.h"
#include "actors/wait.h"

namespace troupe {

struct GenerationRequest {
  std::vector<std::vector<std::int32_t>> prompts;
  float temperature = 0, top_p = 1;
  std::uint64_t seed = 1;
  int tokens_max = 64;
  std::int32_t stop_token = -1;  // ends an answer (kept in it); -1: none
  bool want_logits = false;
};

struct GenerationResult {
  std::vector<std::vector<std::int32_t>> tokens;  // per prompt
  std::vector<std::vector<float>> logprobs;
  std::vector<std::vector<float>> logits;  // per prompt, tokens x vocabulary; when wanted
  bool done = false;
};

class Rollout {
 public:
  // sink: where a tool in the same process reads the result; may be null. Without a request of a tool, StartEvaluation
  // makes it answer the held-out arithmetic problems.
  Rollout(const Context& context, const Config& config, GenerationRequest request, GenerationResult* sink);

  void on(const Restore& restore, const Address& from);
  void on(const StartEvaluation& start, const Address& from);
  void on(const Generated& generated, const Address& from);
  void on(const Credit&, const Address&) {}
  void on(const Stop&, const Address&) {}
  void waits(Waits& out) const;
  std::uint32_t attempt() const { return attempt_; }
  std::int64_t version() const { return version_; }

 private:
  struct Sequence {
    std::size_t prompt;
    int cache_slot;
    std::int32_t cached = 0;
    std::vector<std::int32_t> next;
    bool done = false;
  };
  bool ready(const Sequence& sequence) const { return !sequence.done && !sequence.next.empty(); }
  void begin_group();
  void go_on();
  bool send();
  void finish();
  void report_arithmetic();
  bool append(Sequence& sequence, std::int32_t token);

  Context context_;
  const Config& config_;
  GenerationRequest request_;
  GenerationResult* sink_;
  GenerationResult own_;
  std::uint32_t attempt_ = 0;
  std::int64_t version_ = 0;
  std::int32_t sent_ = 0;
  std::size_t next_prompt_ = 0;
  std::vector<Sequence> group_;
  std::map<std::int32_t, std::vector<std::size_t>> asked_;  // by batch under way: sequences of the group
};

}  // namespace troupe
