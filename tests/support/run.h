// Commands as a person runs them: output captured, a process group of their own, a time limit. The law: when a Process
// is gone from the test, so is its whole group.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace troupe::test {

// A folder that is gone with the test.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

struct Ended {
  int code = -1;  // the exit code; -1: ended by `signal`
  int signal = 0;
  bool late = false;  // killed at its time limit
  std::string out, err;
};

using Arguments = std::vector<std::string>;

class Process {
 public:
  // The group dies of SIGKILL once `limit_ms` have gone by, whoever is waiting.
  explicit Process(const Arguments& arguments, int limit_ms = 60000);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // Follows the process until `happened` (asked every few milliseconds) or its end. True: it happened.
  bool follow(const std::function<bool()>& happened);
  // To the whole group, as a terminal's Ctrl-C is.
  void signal_group(int signal) const;
  // Waits for the end of the first process and for all that it and its children write.
  Ended wait();
  // The members of the group that still run.
  std::vector<pid_t> members() const;
  // True once no member runs any more, within the time.
  bool all_gone(int milliseconds) const;
  // What it has said so far.
  const std::string& err() const { return ended_.err; }
  const std::string& out() const { return ended_.out; }
  pid_t pid() const { return pid_; }

 private:
  void look(int milliseconds);
  void reap();

  pid_t pid_ = -1;
  int out_fd_ = -1, err_fd_ = -1;
  bool over_ = false;
  std::int64_t deadline_ms_ = 0;
  Ended ended_;
};

// To the end. With kill_after_ms the whole group dies of SIGKILL then, wherever it is.
Ended run(const Arguments& arguments, int kill_after_ms = 0, int limit_ms = 60000);

// `troupe ARGUMENTS...`: the binary of this build.
Arguments troupe_command(const Arguments& arguments);
Ended troupe(const Arguments& arguments);

// `before` and, for each of `sets`, --set and it.
Arguments with_sets(Arguments before, const Arguments& sets);

// A training run on configs/tiny.toml with everything that takes time and changes no weight left out.
Arguments tiny_sets(const Arguments& more);
Arguments tiny_run(const std::string& folder, const Arguments& sets);
Arguments tiny_resume(const std::string& folder, const Arguments& sets);

// The lines of a run's metrics.jsonl that say `kind`; a last line cut off by a kill is left out.
std::vector<nlohmann::json> metrics_of(const std::string& run_folder, const std::string& kind);

// The folders of a run's complete checkpoints, the oldest first.
std::vector<std::string> checkpoints_of(const std::string& run_folder);

std::string read_file(const std::string& path);
void write_file(const std::string& path, const std::string& bytes);

}  // namespace troupe::test
