// ReadBack: after each move to a version an owner's weights are read back and their digest told to the conductor, so that
// nobody samples from, or learns from, weights that aren't what the update wrote. Only where there are rollouts.
#pragma once

#include <cstdint>
#include <string>

#include "actors/owner.h"
#include "actors/restoring.h"

namespace troupe {

class ReadBack {
 public:
  ReadBack(const Context& context, Owner& owner, Restoring& restoring);
  // Reads what the owner holds now; `token` comes back with each segment. waits: for a copy of somebody else's tensor
  // too, which copied() tells of.
  void begin(std::uint32_t attempt, std::uint64_t token, bool waits);
  void segment_done();
  // problem: the copy isn't what its owner sent.
  void copied(const std::string& problem);
  bool active() const { return left_ > 0; }

 private:
  void one_less();

  Context context_;
  Owner& owner_;
  Restoring& restoring_;
  std::uint32_t attempt_ = 0;
  std::int64_t version_ = -1;
  int left_ = 0;
  bool waits_ = false;
  std::string problem_;
};

}  // namespace troupe
