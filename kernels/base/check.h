// CHECK(condition, "sentence with {}", value): a programmer's error. Always on; prints file, line and sentence, aborts.
#pragma once

#include <fmt/format.h>

#include <string>

namespace troupe {

[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& message);

}  // namespace troupe

#define CHECK(condition, ...)                                                             \
  do {                                                                                    \
    if (!(condition)) [[unlikely]]                                                        \
      ::troupe::check_failed(__FILE__, __LINE__, #condition, ::fmt::format(__VA_ARGS__)); \
  } while (false)
