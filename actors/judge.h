// Judge: has answers scored by the jury's processes, and passes them on with their verdict. A request whose judge died
// or hung is asked again; when that doesn't help the run stops, naming it (or it is worth nothing: judge.on_failure).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "actors/config.h"
#include "actors/node.h"
#include "actors/tasks/task_text.h"
#include "actors/wait.h"

namespace troupe {

class Judge {
 public:
  Judge(const Context& context, const Config& config, std::shared_ptr<const TaskSet> tasks);

  void on(const Restore& restore, const Address& from);
  void on(const Sampled& sampled, const Address& from);
  void on(const JuryDone& done, const Address& from);
  void on(const Stop&, const Address&) {}
  void waits(Waits& out) const;
  std::uint32_t attempt() const { return attempt_; }
  std::int64_t version() const { return version_; }

 private:
  struct Case {
    Sampled sampled;
    std::string request;
    int failures = 0;
  };
  void failed(std::uint64_t token, const std::string& problem);
  void decide(std::uint64_t token, Judged&& judged);

  Context context_;
  const Config& config_;
  std::shared_ptr<const TaskSet> tasks_;
  std::uint32_t attempt_ = 0;
  std::int64_t version_ = 0;
  std::uint64_t next_token_ = 0;
  std::map<std::uint64_t, Case> cases_;  // asked of the jury; bounded by what one rollout samples
};

}  // namespace troupe
