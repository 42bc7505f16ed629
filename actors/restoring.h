// Restoring: how a holder of state (stage, expert shard, shadow) enters an attempt. Segments under way write to its
// memory, so they end first; then it comes to the version that is asked for by the decision it missed, or part by part
// from another holder or from a file. What its segments would have led to is forgotten.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "actors/checkpoint/state_file.h"
#include "actors/owner.h"
#include "actors/wait.h"

namespace troupe {

class Restoring {
 public:
  // entered(restore, problem): the state is there (problem empty): clear everything else, enter, answer.
  using Entered = std::function<void(const Restore&, const std::string& problem)>;
  Restoring(const Context& context, const Config& config, Owner& owner, Entered entered);

  // Every segment of the actor goes through here, so that those under way are known. REQUIRES: the token's highest bit
  // is clear.
  void submit(const SegmentKey& key, Ops ops, std::uint64_t token, const SegmentWay& way = {});
  // REQUIRES: called first for every SegmentDone. True: it belonged to what is forgotten, or to the restoring.
  bool takes(const SegmentDone& done);
  // Copies what is written once; it is there before any attempt is entered.
  void bring(const Payload& values, const Tensor& to);

  // False: an older attempt's, nothing is to be done.
  bool begin(const Restore& restore);
  void on(const Inquiry& inquiry, const Address& from);
  bool active() const { return step_ != Step::idle; }
  void waits(Waits& out) const;  // all of the actor's while it is active; else, parts on their way out
  void on(const SnapshotPart& part);
  void on(const Fetch& fetch, const Address& from);

 private:
  // load and fetch are followed by refresh and encode, as draw is; apply, and an update that was under way, by recode; all
  // ways end in clear.
  enum class Step : std::uint8_t { idle, drain, apply, recode, draw, load, fetch, refresh, encode, clear };
  static constexpr std::uint64_t kOwn = std::uint64_t{1} << 63;  // in tokens of segments that are not the actor's

  void go_on();
  void choose();
  void run(Step step, std::vector<Ops> work);
  void bring(const Payload& values, Ops ops);
  void own_done(std::uint64_t token);
  void take_state();
  void next_parts();
  void load_part(const StatePart& part);
  void finish(const std::string& problem);
  void enter();
  void answer_fetches();
  void answer(const Fetch& fetch, const Address& from);
  std::size_t copied() const { return arrived_ - coming_.size(); }  // parts of the state that comes

  Context context_;
  const Config& config_;
  Owner& owner_;
  Entered entered_;
  Step step_ = Step::idle;
  Restore restore_;
  bool begun_ = false;  // restore_ is somebody's
  std::string problem_;
  std::uint32_t entered_attempt_ = kNoAttempt;
  int in_flight_ = 0;
  std::uint64_t next_token_ = kOwn;
  std::map<std::uint64_t, Payload> coming_;                            // by token: being copied in
  std::map<std::uint64_t, std::pair<SnapshotPart, Address>> leaving_;  // by token: being copied out
  std::optional<StateFile> file_;
  std::size_t asked_ = 0, arrived_ = 0;  // parts
  std::vector<std::pair<Fetch, Address>> waiting_;
};

}  // namespace troupe
