#include "launcher/simulation/child.h"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "kernels/base/error.h"

namespace troupe {

namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

[[noreturn]] void live(Simulator& simulator, const Scenario& scenario, unsigned seconds_max, const std::string& answer,
                       const std::string& last_words) {
  std::signal(SIGABRT, SIG_DFL);
  std::signal(SIGALRM, SIG_DFL);
  if (std::freopen(last_words.c_str(), "w", stderr) == nullptr) ::_exit(3);
  ::alarm(seconds_max);
  const std::string broken = simulator.run(scenario).broken;
  std::ofstream(answer) << broken.substr(0, broken.find('\n')) << "\n";
  ::_exit(0);
}

}  // namespace

std::string broken_in_child(Simulator& simulator, const Scenario& scenario, unsigned seconds_max) {
  const std::string answer = simulator.scratch() + "/answer", last_words = simulator.scratch() + "/last-words";
  std::filesystem::remove(answer);
  simulator.forget_errors();
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child < 0) throw Error("can't start a process for a simulated world");
  if (child == 0) live(simulator, scenario, seconds_max, answer, last_words);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFEXITED(status) && std::filesystem::exists(answer)) return first_line(answer);
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) return "TOO LONG: an actor that never returns?";
  const std::string words = first_line(last_words);
  return words.empty() ? fmt::format("it ended by signal {}", WTERMSIG(status)) : words;
}

}  // namespace troupe
