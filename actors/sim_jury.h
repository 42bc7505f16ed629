// SimJury: a jury in virtual time. Verdicts are those of verify(); how long one takes, and whether its judge dies or
// hangs instead, is drawn from the seed and the number of the request. The law: outcomes are a function of the options
// and of what was submitted when.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "actors/jury.h"
#include "actors/tasks/verify.h"

namespace troupe {

struct SimJuryOptions {
  std::uint64_t seed = 0;
  int processes = 2;  // that judge at once
  std::int64_t delay_us_min = 100, delay_us_max = 1000;
  double death_chance = 0;             // of a request's judge, some time before it would have answered
  double hang_chance = 0;              // of a request's judge; told when its time is over
  std::int64_t deadline_us = 100'000;  // a judge that takes longer counts as hung
  VerifyRules rules;
};

class SimJury final : public Jury {
 public:
  explicit SimJury(const SimJuryOptions& options);

  void submit(std::uint32_t actor, std::uint64_t token, std::string request) override;
  void take_outcomes(std::vector<JuryOutcome>& out) override;
  int outcome_fd() const override { return -1; }
  std::size_t jobs() const override { return waiting_.size() + running_.size(); }

  // Decides what is due by now, in order of time; requests that wait begin as judges become free.
  void advance(std::int64_t now_us);
  // When there is something to do: the end of a request under way, at once where one waits beside a free judge; the
  // largest number if there is none.
  std::int64_t next_us() const;

 private:
  struct Job {
    std::uint32_t actor = 0;
    std::uint64_t token = 0, number = 0;
    std::string request;
    std::int64_t end_us = 0;
    bool dies = false, hangs = false;
  };

  void begin(std::int64_t now_us);
  void decide(const Job& job);

  SimJuryOptions options_;
  std::uint64_t count_ = 0;
  std::deque<Job> waiting_;
  std::vector<Job> running_;  // by end, then by number
  std::vector<JuryOutcome> outcomes_;
};

}  // namespace troupe
