// Whole runs that take a moment: a tiny model that writes digits backwards, right now and then, and its reinforcement.
#pragma once

#include <string>

#include "tests/support/run.h"

namespace troupe::test {

// The text of its configuration, to which phases may be added.
std::string small_config();
// What makes it a supervised run, or one of reinforcement.
extern const Arguments kSupervised, kReinforcement;

// A folder with supervised weights, and the runs of reinforcement that start from them.
class School {
 public:
  School();
  // Arguments of `troupe`, for a run of this name.
  Arguments train(const std::string& name, const Arguments& sets) const;
  Arguments resume(const std::string& name, const Arguments& sets) const;
  std::string run(const std::string& name) const { return folder_ / name; }
  std::string config() const { return folder_ / "small.toml"; }
  // Of the weights that an undisturbed run ends with.
  std::string digest_after(const Arguments& sets);

 private:
  Folder folder_;
  int runs_ = 0;
};

Ended expect_success(const Arguments& arguments);
// Of a run's last checkpoint.
std::string digest_of(const std::string& run);
bool has(const std::string& text, const std::string& part);
// The processes that a run's nodes, or the run itself, have started, but for nodes.
std::vector<pid_t> judges_of(const Process& process);
std::vector<pid_t> nodes_of(const Process& process);

Arguments operator+(Arguments a, const Arguments& b);

}  // namespace troupe::test
