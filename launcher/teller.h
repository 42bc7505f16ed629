// How far long work is, and how long it will take: one live line on a terminal, a line now and then elsewhere; on
// standard error, since the result goes to the other.
#pragma once

#include <cstdint>
#include <string>

namespace troupe {

class Teller {
 public:
  Teller(std::string what, bool quiet, std::string unit = "answers");
  ~Teller();
  Teller(const Teller&) = delete;
  Teller& operator=(const Teller&) = delete;
  void operator()(std::size_t done, std::size_t all);

 private:
  std::string what_, unit_;
  bool quiet_, terminal_, open_ = false;
  std::int64_t begin_us_, last_us_;
};

}  // namespace troupe
