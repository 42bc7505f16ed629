#include "kernels/base/check.h"

#include <cstdio>
#include <cstdlib>

#include "kernels/base/check_handler.h"

namespace troupe {

namespace {

std::function<void(const std::string&)>& handler() {
  static std::function<void(const std::string&)> all;
  return all;
}

}  // namespace

void set_check_handler(std::function<void(const std::string& sentence)> one) { handler() = std::move(one); }

void check_failed(const char* file, int line, const char* condition, const std::string& message) {
  if (handler()) handler()(message);
  std::fprintf(stderr, "%s:%d: check failed: %s: %s\n", file, line, condition, message.c_str());
  std::fflush(stderr);
  std::abort();
}

}  // namespace troupe
