// What `troupe profile` tells, as text: compute threads by cause, ops by kind, handlers by actor and message.
#pragma once

#include <cstdint>
#include <string>

#include "actors/bill.h"
#include "actors/config.h"
#include "actors/node.h"
#include "kernels/profile.h"

namespace troupe {

// Measured over `steps` steps that took `wall_us` together.
struct Profile {
  const Config& config;
  int steps;
  std::int64_t wall_us = 0;
  Account account;
  OpProfile ops;
  HandlerProfile handlers;

  double thread_us() const { return static_cast<double>(wall_us) * config.device.threads; }
  double ms_a_step(double us) const { return us / 1000 / steps; }
  double peak_gflops() const { return config.peak_gflops(); }
};

std::string tables(const Profile& profile);
// "rows x [sum] x cols" of an op, rows in the mean.
std::string shape_of(const OpKey& key, const OpTime& time);

}  // namespace troupe
