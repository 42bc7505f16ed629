#include "launcher/judge.h"

#include <grp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <iostream>
#include <nlohmann/json.hpp>

#include "launcher/confined_command.h"

namespace troupe {

using nlohmann::json;

namespace {

// Numbers of users that no machine gives to people; one a judge, so that the kernel counts each one's processes apart.
constexpr unsigned kFirstUser = 0x70000000;

JudgeSettings settings_of(const std::string& line) {
  const json told = json::parse(line);
  JudgeSettings settings;
  settings.judge.command = told.at("command");
  settings.judge.cpu_seconds = told.at("cpu_seconds");
  settings.judge.memory_mib = told.at("memory_mib");
  settings.judge.file_mib = told.at("file_mib");
  settings.judge.processes_max = told.at("processes_max");
  settings.judge.output_kib = told.at("output_kib");
  settings.rules = {.has_tags = told.at("has_tags"), .format_reward = told.at("format_reward")};
  settings.folder = told.at("folder");
  return settings;
}

// Root's judge goes on as a user who owns nothing but the folder. "" or why it stays root.
std::string become_nobody(const std::string& folder) {
  if (::geteuid() != 0) return "";
  const unsigned user = kFirstUser + static_cast<unsigned>(::getpid());
  const bool done = ::chown(folder.c_str(), user, user) == 0 && ::setgroups(0, nullptr) == 0 &&
                    ::setresgid(user, user, user) == 0 && ::setresuid(user, user, user) == 0;
  ::prctl(PR_SET_DUMPABLE, 1);  // its own entries in /proc are its own again
  return done ? "" : "the judge can't leave root, so that processes of a command are not counted";
}

void write_line(const std::string& line) { std::cout << line << '\n' << std::flush; }

}  // namespace

std::string settings_line(const JudgeSettings& settings) {
  const JudgeConfig& judge = settings.judge;
  return json{{"command", judge.command},
              {"cpu_seconds", judge.cpu_seconds},
              {"memory_mib", judge.memory_mib},
              {"file_mib", judge.file_mib},
              {"processes_max", judge.processes_max},
              {"output_kib", judge.output_kib},
              {"has_tags", settings.rules.has_tags},
              {"format_reward", settings.rules.format_reward},
              {"folder", settings.folder}}
      .dump();
}

std::vector<std::string> notes_of(const std::string& line) {
  std::vector<std::string> notes;
  const json told = json::parse(line, nullptr, false);
  if (!told.is_object() || !told.contains("notes") || !told["notes"].is_array()) return notes;
  for (const json& note : told["notes"])
    if (note.is_string()) notes.push_back(note.get<std::string>());
  return notes;
}

int judge_main() {
  std::ios::sync_with_stdio(false);
  ::signal(SIGPIPE, SIG_IGN);  // a command need not read its request; a jury that is gone ends the input
  const rlimit no_core{.rlim_cur = 0, .rlim_max = 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  std::string line;
  if (!std::getline(std::cin, line)) return 0;
  const JudgeSettings settings = settings_of(line);
  json notes = json::array();
  const bool has_command = !settings.judge.command.empty();
  if (has_command)
    if (const std::string note = become_nobody(settings.folder); !note.empty()) notes.push_back(note);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // besides the end of its input; a change of user would have undone it
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);  // what a command leaves behind comes to the judge, who ends it
  if (::chdir("/") != 0) return 1;
  ConfinedCommand command(settings.judge, settings.folder);
  if (has_command)
    for (const std::string& note : command.probe()) notes.push_back(note);
  write_line(json{{"notes", notes}}.dump());
  while (std::getline(std::cin, line)) {
    const std::string verdict = has_command ? command.verdict_on(line) : verdict_on(line, settings.rules);
    if (const std::string note = command.take_note(); !note.empty())
      write_line(json{{"notes", json::array({note})}}.dump());
    write_line(verdict);
  }
  return 0;
}

}  // namespace troupe
