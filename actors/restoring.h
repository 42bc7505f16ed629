// Restoring: how a holder of state (stage, expert shard, shadow) enters an attempt. Segments under way write to its
// memory, so they end first; then it comes to the version that is asked for by the decision it missed, from another
// holder, or from a file. What its segments would have led to is forgotten.
#pragma once

#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "actors/owner.h"
#include "actors/wait.h"

namespace troupe {

class Restoring {
 public:
  // entered(restore, problem): the state is there (problem empty): clear everything else, enter, answer.
  using Entered = std::function<void(const Restore&, const std::string& problem)>;
  Restoring(const Context& context, Owner& owner, Entered entered);

  // Every segment of the actor goes through here, so that those under way are known.
  void submit(const SegmentKey& key, Ops ops, std::uint64_t token, std::uint32_t strand = 0);
  // REQUIRES: called first for every SegmentDone. True: it belonged to what is forgotten, or to the restoring.
  bool takes(const SegmentDone& done);

  // False: an older attempt's, nothing is to be done.
  bool begin(const Restore& restore);
  void on(const Inquiry& inquiry, const Address& from);
  bool active() const { return step_ != Step::idle; }
  void waits(Waits& out) const;  // while it is active
  void on(const SnapshotPart& part);
  void on(const Fetch& fetch, const Address& from);

 private:
  enum class Step : std::uint8_t { idle, drain, apply, draw, fetch };
  void go_on();
  void apply();
  void load();
  void draw();
  void ask();
  void finish(const std::string& problem);
  void answer_fetches();

  Context context_;
  Owner& owner_;
  Entered entered_;
  Step step_ = Step::idle;
  Restore restore_;
  bool begun_ = false;  // restore_ is somebody's
  std::uint32_t entered_attempt_ = kNoAttempt;
  int in_flight_ = 0;
  std::int32_t asked_ = 0, received_ = 0;  // parts
  std::vector<std::pair<Fetch, Address>> waiting_;
};

}  // namespace troupe
