// Shadow: the copy of an owner's state in another node's memory. It gets the owner's gradient before the owner votes, and
// applies the same decision to it with the same kernel: both are at the next state. It does nothing else.
#pragma once

#include "actors/owner.h"
#include "actors/restoring.h"
#include "actors/segment_group.h"
#include "actors/wait.h"

namespace troupe {

class Shadow {
 public:
  Shadow(const Context& context, const Config& config, const Address& owner);

  void on(const Inquiry& inquiry, const Address& from) { restoring_.on(inquiry, from); }
  void on(const Restore& restore, const Address& from);
  void on(const Fetch& fetch, const Address& from) { restoring_.on(fetch, from); }
  void on(const SnapshotPart& part, const Address&) { restoring_.on(part); }
  void on(const ShadowGradient& gradient, const Address& from);
  void on(const Decision& decision, const Address& from);
  void on(const SegmentDone& done, const Address& from);
  void on(const Stop&, const Address&) {}
  void waits(Waits& out) const;
  std::uint32_t attempt() const { return attempt_; }
  std::int64_t version() const { return owner_.version(); }

 private:
  void run_all(std::vector<Ops> work, void (Shadow::*next)());
  void taken();
  void applied();

  Context context_;
  Address of_;  // the owner
  Owner owner_;
  Restoring restoring_;
  std::uint32_t attempt_ = kNoAttempt;
  SegmentGroup group_{restoring_};
  std::optional<std::pair<ShadowGradient, Address>> taking_, early_;
};

// The parameters whose state an owner holds.
std::vector<Parameter> parameters_of(const Config& config, const Address& owner);

}  // namespace troupe
