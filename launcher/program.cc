#include "launcher/program.h"

#include <fmt/format.h>

#include <filesystem>

#include "launcher/whole_file.h"

namespace troupe {

namespace fs = std::filesystem;

std::string program() {
  std::error_code failed;
  const fs::path self = fs::read_symlink("/proc/self/exe", failed);
  if (failed) return "troupe";
  const fs::path near = self.lexically_relative(fs::current_path(failed));
  if (failed || near.empty() || near.string().starts_with("../..")) return self.string();
  return near.has_parent_path() ? near.string() : "./" + near.string();
}

std::string shell_quoted(const std::string& word) {
  const char* plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./=:,+@%";
  if (!word.empty() && word.find_first_not_of(plain) == std::string::npos) return word;
  std::string quoted = "'";
  for (const char c : word) {
    if (c == '\'')
      quoted += "'\\''";
    else
      quoted += c;
  }
  return quoted + "'";
}

// A phase goes on as part of its recipe: RUN of RUN/phases/NAME.
std::string resume_command(const std::string& folder) {
  const fs::path phases = fs::path(folder).parent_path(), run = phases.parent_path();
  std::error_code none;
  const bool is_phase = phases.filename() == "phases" && fs::exists(run / "config.toml", none);
  const std::string run_folder = !is_phase ? folder : run.empty() ? "." : run.string();
  // One that runs on other machines says itself how (launcher/launch).
  if (const std::string there = read_whole_file(run_folder + "/launch"); !there.empty())
    return there.substr(0, there.find('\n'));
  return fmt::format("{} train {} --out {} --resume", shell_quoted(program()),
                     shell_quoted(run_folder + "/config.toml"), shell_quoted(run_folder));
}

}  // namespace troupe
