// Error: what start-up code and library fences throw. One lowercase sentence: what, where, what to do next.
// It is caught in main() and nowhere between actors.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace troupe {

class Error : public std::runtime_error {
 public:
  template <typename... Args>
  explicit Error(fmt::format_string<Args...> format, Args&&... args)
      : std::runtime_error(fmt::format(format, std::forward<Args>(args)...)) {}
};

}  // namespace troupe
