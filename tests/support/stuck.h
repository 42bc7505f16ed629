// A real process with a real board file: its conductor waits for the plan of step 7, and its loader never returns from
// the handler of StartStep. Its inspector thread answers.
#pragma once

#include <sys/types.h>

#include <string>

namespace troupe::test {

class StuckProcess {
 public:
  // The run's folder is there. The board names the conductor's wait before the loader is stuck, which is soon.
  explicit StuckProcess(const std::string& run);
  ~StuckProcess();
  StuckProcess(const StuckProcess&) = delete;
  StuckProcess& operator=(const StuckProcess&) = delete;
  // Waits until a board says that somebody has been in a handler for so long; false: none did in time.
  static bool is_stuck(const std::string& run, int milliseconds);

 private:
  pid_t pid_;
};

}  // namespace troupe::test
