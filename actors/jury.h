// Jury: who scores answers, outside of the actors. Asynchronous: a request names an actor and a token; the outcome comes
// back as a JuryOutcome, in any order. A request has one outcome, unless the jury ends first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace troupe {

struct JuryOutcome {
  std::uint32_t actor = 0;
  std::uint64_t token = 0;
  std::string verdict;  // one line of JSON: read_verdict in actors/tasks/verify.h
  std::string problem;  // not empty: the judge died or hung, and nothing was decided; asking again may help
};

class Jury {
 public:
  // Asked for and not yet decided; more is a programmer's error.
  static constexpr std::size_t kJobsMax = std::size_t{1} << 16;

  virtual ~Jury() = default;
  // `request`: one line of JSON without its end, from request_line in actors/tasks/verify.h.
  virtual void submit(std::uint32_t actor, std::uint64_t token, std::string request) = 0;
  virtual void take_outcomes(std::vector<JuryOutcome>& out) = 0;
  // Readable while there are outcomes; -1: nothing to wait on.
  virtual int outcome_fd() const = 0;
  // Asked for and not yet decided.
  virtual std::size_t jobs() const = 0;
};

}  // namespace troupe
