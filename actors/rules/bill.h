// The rule of the bill: to which bin an idle thread's time belongs, from what the actors beside it wait for.
#pragma once

#include <compare>
#include <map>

#include "actors/wait.h"

namespace troupe {

// Where a compute thread's time goes.
enum class Bin : std::uint8_t {
  useful,        // forward, backward, weight gradients, optimizer
  evaluation,    // of held-out data, and generation for a person
  messages,      // idle while the loop thread handles what came, or work is ready and the thread has yet to wake
  narrow,        // idle beside a thread that works: too little to do at once
  bubble,        // idle until another stage of the pipeline has done its part
  imbalance,     // idle until rows come from or for experts: one shard has more to do, or the way to it is slow
  waiting,       // idle until somebody's gradients, vote, decision or tokens come
  checkpoint,    // copying, writing, or idle until it is written
  redo,          // what a loss cost: the lost attempt, the recovery, the replaced process
  start_up,      // before the first step, and the end
  rollout,       // sampling what steps learn from
  scoring,       // log-probabilities of samples, by themselves
  rollout_tail,  // idle until the last answers are sampled and judged
  paused,        // idle because somebody paused the run
};
constexpr std::size_t kBins = 14;
const char* to_string(Bin bin);
const char* meaning(Bin bin);  // a few words for a person

constexpr Address kNoHolder{Role::supervisor, 0};

struct Cause {
  Bin bin = Bin::start_up;
  Address holder = kNoHolder;  // who is waited for
  friend auto operator<=>(const Cause&, const Cause&) = default;
};

// What all actors of one node wait for, by who waits.
using NodeWaits = std::map<Address, Waits>;

// ran: the run had begun before, so that coming to one state is redo, not start-up.
Cause cause_of(const NodeWaits& waits, bool ran);

}  // namespace troupe
