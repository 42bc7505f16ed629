#include "actors/read_back.h"

namespace troupe {

namespace {
constexpr Address kConductor{Role::conductor, 0};
}

ReadBack::ReadBack(const Context& context, Owner& owner, Restoring& restoring)
    : context_(context), owner_(owner), restoring_(restoring) {}

void ReadBack::begin(std::uint32_t attempt, std::uint64_t token, bool waits) {
  std::vector<Ops> work = owner_.read_back();
  if (work.empty()) return;
  attempt_ = attempt;
  version_ = owner_.version();
  problem_.clear();
  waits_ = waits;
  left_ = static_cast<int>(work.size()) + (waits ? 1 : 0);
  for (Ops& ops : work) restoring_.submit({SegmentClass::apply, version_, 0, 0}, std::move(ops), token);
}

void ReadBack::segment_done() { one_less(); }

void ReadBack::copied(const std::string& problem) {
  if (!waits_ || left_ == 0) return;
  waits_ = false;
  if (problem_.empty()) problem_ = problem;
  one_less();
}

void ReadBack::one_less() {
  if (--left_ > 0) return;
  if (problem_.empty()) problem_ = owner_.compare_digests();
  context_.post(kConductor, WeightsDigest{version_, attempt_, owner_.digest(), problem_});
}

}  // namespace troupe
