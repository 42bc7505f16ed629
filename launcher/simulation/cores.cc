#include "launcher/simulation/cores.h"

#include <algorithm>
#include <limits>

#include "kernels/base/check.h"

namespace troupe {

Cores::Cores(const CoresOptions& options)
    : options_(options), wanted_(options.owners, 0), last_core_(options.owners, 0), cores_(options.cores) {
  CHECK(options.cores > 0, "a machine without cores");
}

void Cores::come(std::size_t owner, std::int64_t now_us) {
  const auto rank = [&](const Core& core) { return core.waiting.size() + (core.busy ? 1 : 0); };
  std::size_t best = last_core_[owner];
  for (std::size_t i = 0; i < cores_.size(); ++i)
    if (rank(cores_[i]) < rank(cores_[best])) best = i;
  cores_[best].waiting.push_back({owner, now_us});
}

void Cores::go(std::size_t owner) {
  for (Core& core : cores_)
    if (core.busy && core.owner == owner) {
      core.busy = false;
      last_core_[owner] = static_cast<std::size_t>(&core - cores_.data());
      return;
    }
  for (Core& core : cores_) {
    const auto one =
        std::find_if(core.waiting.begin(), core.waiting.end(), [&](const Waiting& w) { return w.owner == owner; });
    if (one == core.waiting.end()) continue;
    core.waiting.erase(one);
    return;
  }
}

void Cores::want(std::size_t owner, std::size_t threads, std::int64_t now_us) {
  CHECK(owner < wanted_.size(), "owner {} of {}", owner, wanted_.size());
  for (; wanted_[owner] < threads; ++wanted_[owner]) come(owner, now_us);
  for (; wanted_[owner] > threads; --wanted_[owner]) go(owner);
}

void Cores::give(Core& core, std::deque<Waiting>& from, std::int64_t now_us) const {
  core.busy = true;
  core.owner = from.front().owner;
  core.until_us = now_us + options_.slice_us;
  from.pop_front();
}

void Cores::share(std::int64_t now_us) {
  for (Core& core : cores_) {
    if (core.busy && core.until_us <= now_us && !core.waiting.empty()) {
      core.waiting.push_back({core.owner, now_us});
      core.busy = false;
    }
    if (!core.busy && !core.waiting.empty()) give(core, core.waiting, now_us);
  }
  for (Core& core : cores_) {
    if (core.busy) continue;
    for (Core& other : cores_)
      if (!core.busy && !other.waiting.empty() && other.waiting.front().since_us + options_.cold_us <= now_us)
        give(core, other.waiting, now_us);
  }
}

std::size_t Cores::granted(std::size_t owner) const {
  return static_cast<std::size_t>(
      std::count_if(cores_.begin(), cores_.end(), [&](const Core& core) { return core.busy && core.owner == owner; }));
}

bool Cores::all_busy() const {
  return std::all_of(cores_.begin(), cores_.end(), [](const Core& core) { return core.busy; });
}

bool Cores::crowded() const {
  return std::any_of(cores_.begin(), cores_.end(), [](const Core& core) { return !core.waiting.empty(); });
}

std::int64_t Cores::next_us(std::int64_t now_us) const {
  std::int64_t next = std::numeric_limits<std::int64_t>::max();
  const std::int64_t tick_us = (now_us / options_.tick_us + 1) * options_.tick_us;
  for (const Core& core : cores_) {
    if (core.waiting.empty()) continue;
    next = std::min(next, core.until_us);
    if (!all_busy()) next = std::min(next, tick_us);
  }
  return next;
}

}  // namespace troupe
