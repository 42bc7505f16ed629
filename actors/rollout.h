// Rollout: writes tokens for one replica. Forward batches with a key-value cache through the same stages, shards and
// kernels that train, so the log-probability that sampled a token is the one that training would compute.
//
// A job is a list of prompts with some answers each; jobs are done one after another. Sequences are decoded together, as
// many as there are places in the cache; a place is taken again as soon as its sequence is finished. The answers to one
// prompt share its reading: a later one copies the prompt's cached rows from another that still has its place, and reads
// only the prompt's last token. None of this changes a bit of any answer.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/config.h"
#include "actors/node.h"
#include "actors/tasks/task_text.h"
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
  std::int64_t begun = 0, written = 0;     // sequences that have a token; tokens of all, while they are written
  bool done = false;
};

class Rollout {
 public:
  // sink: where a tool in the same process reads the result; may be null. Without a request of a tool, StartEvaluation
  // makes it answer the held-out arithmetic problems. tasks: null without any.
  Rollout(const Context& context, const Config& config, int replica, std::shared_ptr<const TaskSet> tasks,
          GenerationRequest request, GenerationResult* sink);

  void on(const Restore& restore, const Address& from);
  void on(const StartEvaluation& start, const Address& from);
  void on(const SamplePrompts& prompts, const Address& from);
  void on(const Generated& generated, const Address& from);
  void on(const Credit&, const Address&) {}
  void on(const Stop&, const Address&) {}
  void waits(Waits& out) const;
  std::uint32_t attempt() const { return attempt_; }
  std::int64_t version() const { return version_; }

 private:
  struct Prompt {
    std::int32_t number = 0;  // within the rollout, or the request
    std::vector<std::int32_t> tokens;
    std::int32_t begun = 0;  // answers
  };
  struct Job {
    std::optional<SamplePrompts> of;  // none: the request's
    std::vector<Prompt> prompts;
    int samples = 1;
    GenerationRequest how;  // without prompts
    bool want_kept = false;
    std::size_t opened = 0;    // prompts that were begun
    std::size_t finished = 0;  // answers
    std::size_t answers() const { return prompts.size() * static_cast<std::size_t>(samples); }
  };
  struct Sequence {
    std::size_t prompt = 0;  // of the job
    std::int32_t sample = 0;
    std::int32_t cached = 0;           // rows in its place
    std::vector<std::int32_t> next;    // tokens to read; empty while a batch is under way
    std::vector<std::int32_t> tokens;  // written
    std::vector<float> logprobs;
    std::vector<std::int32_t> kept;
    bool fork = false;  // its first rows are copied from `forked_from`
    std::size_t forked_from = 0;
  };
  // Where a sequence's cached rows are: place p has rows p * length .. of the cache.
  struct Place {
    std::optional<Sequence> sequence;
    int forks = 0;  // copies from here under way: it can't be taken yet
    bool free() const { return !sequence && forks == 0; }
  };
  struct Batch;

  void begin_job();
  void go_on();
  void fill_places();
  std::optional<std::size_t> sibling(std::size_t prompt, bool read) const;
  void begin(std::size_t place, std::size_t prompt, std::optional<std::size_t> from);
  bool send();
  void add(Batch& batch, std::size_t place);
  void post(Batch&& batch);
  void take(std::size_t place, const Generated& generated, std::size_t row);
  void finish(std::size_t place);
  void end_job();
  void report_arithmetic();
  Job job_of(const SamplePrompts& prompts) const;
  Job job_of_request() const;
  bool ends(const Sequence& sequence, std::int32_t token) const;

  Context context_;
  const Config& config_;
  int replica_;
  std::shared_ptr<const TaskSet> tasks_;
  GenerationRequest request_;
  GenerationResult* sink_;
  GenerationResult own_;
  std::uint32_t attempt_ = 0;
  std::int64_t version_ = 0;
  std::int32_t sent_ = 0;
  std::deque<Job> jobs_;  // the first is being done
  std::vector<Place> places_;
  struct Asked {
    std::vector<std::size_t> places, forked_from;
  };
  std::map<std::int32_t, Asked> asked_;  // by batch under way
};

}  // namespace troupe
