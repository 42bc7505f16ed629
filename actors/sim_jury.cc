#include "actors/sim_jury.h"

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/random.h"

namespace troupe {

SimJury::SimJury(const SimJuryOptions& options) : options_(options) {
  CHECK(options_.processes > 0 && options_.delay_us_min >= 0 && options_.delay_us_max >= options_.delay_us_min,
        "{} judges that take {}..{} us", options_.processes, options_.delay_us_min, options_.delay_us_max);
}

void SimJury::submit(std::uint32_t actor, std::uint64_t token, std::string request) {
  CHECK(jobs() < kJobsMax, "{} requests wait for the jury", jobs());
  waiting_.push_back({.actor = actor, .token = token, .number = count_++, .request = std::move(request)});
}

void SimJury::take_outcomes(std::vector<JuryOutcome>& out) {
  for (JuryOutcome& outcome : outcomes_) out.push_back(std::move(outcome));
  outcomes_.clear();
}

void SimJury::advance(std::int64_t now_us) {
  begin(now_us);
  while (!running_.empty() && running_.front().end_us <= now_us) {
    const Job done = std::move(running_.front());
    running_.erase(running_.begin());
    decide(done);
    begin(done.end_us);
  }
}

std::int64_t SimJury::next_us() const {
  const bool is_free = running_.size() < static_cast<std::size_t>(options_.processes);
  if (!waiting_.empty() && is_free) return 0;
  return running_.empty() ? std::numeric_limits<std::int64_t>::max() : running_.front().end_us;
}

void SimJury::begin(std::int64_t now_us) {
  while (!waiting_.empty() && running_.size() < static_cast<std::size_t>(options_.processes)) {
    Job job = std::move(waiting_.front());
    waiting_.pop_front();
    const std::uint64_t key = random_key(options_.seed, "jury");
    const auto range = static_cast<std::uint64_t>(options_.delay_us_max - options_.delay_us_min + 1);
    std::int64_t takes_us = options_.delay_us_min + static_cast<std::int64_t>(random_below(range, key, job.number, 0));
    job.dies = random_uniform(key, job.number, 1) < options_.death_chance;
    job.hangs = !job.dies && random_uniform(key, job.number, 2) < options_.hang_chance;
    if (job.dies)
      takes_us = static_cast<std::int64_t>(random_below(static_cast<std::uint64_t>(takes_us) + 1, key, job.number, 3));
    if (takes_us > options_.deadline_us) job.hangs = true;
    job.end_us = now_us + (job.hangs ? options_.deadline_us : takes_us);
    const auto is_later = [&](const Job& other) {
      return std::tie(other.end_us, other.number) > std::tie(job.end_us, job.number);
    };
    running_.insert(std::find_if(running_.begin(), running_.end(), is_later), std::move(job));
  }
}

void SimJury::decide(const Job& job) {
  JuryOutcome outcome{.actor = job.actor, .token = job.token, .verdict = {}, .problem = {}};
  if (job.dies) {
    outcome.problem = "the judge died (simulated)";
  } else if (job.hangs) {
    outcome.problem = "the judge hung (simulated)";
  } else {
    outcome.verdict = verdict_on(job.request, options_.rules);
  }
  outcomes_.push_back(std::move(outcome));
}

}  // namespace troupe
