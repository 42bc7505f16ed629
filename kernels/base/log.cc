#include "kernels/base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>

namespace troupe {
namespace {

spdlog::level::level_enum level_of(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warning:
      return spdlog::level::warn;
    case LogLevel::error:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

std::atomic<bool> is_a_file{false};

}  // namespace

void start_log(const std::string& name, const std::string& path, LogLevel lowest) {
  spdlog::drop_all();
  const auto logger = path.empty() ? spdlog::stderr_logger_mt(name) : spdlog::basic_logger_mt(name, path);
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %L %n: %v");
  logger->set_level(level_of(lowest));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(logger);
  is_a_file = !path.empty();
}

void write_log(LogLevel level, const std::string& line) { spdlog::log(level_of(level), "{}", line); }

bool log_is_a_file() { return is_a_file; }

}  // namespace troupe
