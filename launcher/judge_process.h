// JudgeProcess: one judge as its jury sees it: a child that is given a line and answers one. It has a process group, an
// empty environment but for PATH, and no descriptors but its standard ones; it dies with the thread that started it.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace troupe {

class JudgeProcess {
 public:
  JudgeProcess() = default;
  ~JudgeProcess() { end(); }
  JudgeProcess(const JudgeProcess&) = delete;
  JudgeProcess& operator=(const JudgeProcess&) = delete;

  // Starts `program judge` with a folder of its own; "" or why it can't. REQUIRES: it isn't up.
  std::string start(const std::string& program);
  bool is_up() const { return pid_ > 0; }
  const std::string& folder() const { return folder_; }

  // Descriptors to poll: for reading always, for writing while something waits to be written.
  int read_fd() const { return from_; }
  int write_fd() const { return outgoing_.empty() ? -1 : to_; }
  void send(const std::string& line);
  void flush();
  // The lines that have come; false: there will be no more, or one is too long.
  bool receive(std::vector<std::string>& lines);

  // Ends it and all that it started; how it had ended before, or "" if it had not.
  std::string end();

 private:
  std::string why_ended();

  pid_t pid_ = -1;
  int to_ = -1, from_ = -1;
  std::string outgoing_, incoming_, folder_;
  std::size_t sent_ = 0;
};

}  // namespace troupe
