#include "launcher/teller.h"

#include <unistd.h>

#include <cstdio>
#include <utility>

#include "launcher/loop.h"
#include "launcher/progress.h"

namespace troupe {

namespace {

constexpr std::int64_t kTellEveryUs = 5'000'000, kRedrawEveryUs = 200'000;

}  // namespace

Teller::Teller(std::string what, bool quiet, std::string unit)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      quiet_(quiet),
      terminal_(isatty(STDERR_FILENO) == 1),
      begin_us_(monotonic_us()),
      last_us_(begin_us_) {}

Teller::~Teller() {
  if (open_) std::fputs("\r\033[K", stderr);
}

void Teller::operator()(std::size_t done, std::size_t all) {
  const std::int64_t now_us = monotonic_us();
  if (quiet_ || done == 0 || now_us - last_us_ < (terminal_ ? kRedrawEveryUs : kTellEveryUs)) return;
  last_us_ = now_us;
  open_ = terminal_;
  const double share = static_cast<double>(done) / static_cast<double>(all);
  const double left = static_cast<double>(now_us - begin_us_) / 1e6 * (1 / share - 1);
  std::fprintf(stderr, "%s%s: %zu of %zu %s (%.0f %%)  %s left%s", terminal_ ? "\r\033[K" : "", what_.c_str(), done,
               all, unit_.c_str(), 100 * share, human_time(left).c_str(), terminal_ ? "" : "\n");
}

}  // namespace troupe
