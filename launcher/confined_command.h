// ConfinedCommand: runs judge.command, which nobody trusts, once a request. It is a shell's command line: /bin/sh -c, the
// request on its standard input, a verdict expected on its standard output. Each is a fresh process in an empty folder of
// its own (so paths in it must be absolute), without descriptors or environment (PATH alone), under the limits of
// [judge], unable to gain privileges; it and all that it started are killed when it ends. Where the kernel grants
// namespaces it has no network, sees no other processes, and can write nowhere but in its folder; where it doesn't,
// probe() says what is missing.
// What the limits don't cover: memory is limited for each process, not for all together (that would take a cgroup), and
// so is the processor's time; the jury's deadline ends what is left.
#pragma once

#include <string>
#include <vector>

#include "actors/config.h"

namespace troupe {

class ConfinedCommand {
 public:
  // `folder` exists, is empty, and belongs to this process's user.
  ConfinedCommand(const JudgeConfig& judge, std::string folder);
  // Tries what this machine grants; tells what it doesn't. Call once, before any verdict.
  std::vector<std::string> probe();
  // The verdict on a request. A command that fails, whatever way, earns nothing, and the detail says which.
  // It waits as long as the command does.
  std::string verdict_on(const std::string& request);
  // "" or what whoever wrote the command should know since the last call: that it can't be run, ends with an error, or
  // gives no verdict. Told of the first such request alone. Limits and signals may be a model's answer's doing.
  std::string take_note();

 private:
  struct Ended {
    int code = 0;  // 128 + n: killed by signal n
    double cpu_seconds = 0;
    bool wrote_too_much = false;
    std::string output;
  };

  struct Pipe;

  void converse(int process, Pipe& in, Pipe& out, const std::string& line, Ended& ended) const;
  [[noreturn]] void keep(int in, int out) const;
  [[noreturn]] void become_command() const;
  unsigned confine() const;
  Ended run(const std::string& request);
  void limit() const;
  std::string failure(const Ended& ended) const;

  JudgeConfig judge_;
  std::string folder_, environment_;
  unsigned user_ = 0, group_ = 0;  // as they are called outside of any namespace
  bool has_namespaces_ = false;
  bool has_noted_ = false;
  std::string note_;
};

}  // namespace troupe
