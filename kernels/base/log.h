// One line per event for operators: key=value pairs, no per-microbatch chatter above debug.
#pragma once

#include <fmt/format.h>

#include <string>

namespace troupe {

enum class LogLevel { debug, info, warning, error };

// Where lines go and which pass; called by main() once. An empty path means standard error.
void start_log(const std::string& name, const std::string& path, LogLevel lowest);
void write_log(LogLevel level, const std::string& line);
// Lines go to a file, where nobody sees them come: what a person must know now is to be said besides.
bool log_is_a_file();

template <typename... Args>
void log_info(fmt::format_string<Args...> f, Args&&... args) {
  write_log(LogLevel::info, fmt::format(f, std::forward<Args>(args)...));
}
template <typename... Args>
void log_warning(fmt::format_string<Args...> f, Args&&... args) {
  write_log(LogLevel::warning, fmt::format(f, std::forward<Args>(args)...));
}
template <typename... Args>
void log_error(fmt::format_string<Args...> f, Args&&... args) {
  write_log(LogLevel::error, fmt::format(f, std::forward<Args>(args)...));
}

}  // namespace troupe
