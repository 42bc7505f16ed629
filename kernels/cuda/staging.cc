#include "kernels/cuda/staging.h"

#include <algorithm>

#include "kernels/op_tensors.h"
#include "kernels/op_touches.h"

namespace troupe::cuda {

namespace {

Stretch stretch_of(const Tensor& x) {
  const auto begin = reinterpret_cast<std::uintptr_t>(x.data);
  if (!x || x.cols == 0) return {begin, begin};
  return {begin, begin + static_cast<std::size_t>((x.rows - 1) * x.stride + x.cols) * bytes_of(x.dtype)};
}

struct Operand {
  Stretch place, allocation;
  bool fits;  // to be staged
  bool reads, writes;
};

bool fits(const Tensor& x, Touch touch) { return touch != Touch::other && is_float(x) && x.contiguous(); }

// Those in pinned memory, op after op, of each op first what is read.
std::vector<Operand> operands_of(const std::vector<const Op*>& ops, const PinnedAt& pinned) {
  std::vector<Operand> all;
  for (const Op* const op : ops) {
    const auto add = [&](const Tensor& x, Touch touch, bool reads, bool writes) {
      const Stretch place = stretch_of(x);
      if (place.size() == 0) return;
      const Stretch allocation = pinned(place.begin);
      if (allocation.size() > 0) all.push_back({place, allocation, fits(x, touch), reads, writes});
    };
    for_each_touch(*op, [&](const Tensor& x, Touch touch) {
      if (touch != Touch::write) add(x, touch, true, false);
    });
    for_each_touch(*op, [&](const Tensor& x, Touch touch) {
      if (touch != Touch::read) add(x, touch, false, true);
    });
  }
  return all;
}

// Stretches apart from each other, in increasing order.
class Covered {
 public:
  const std::vector<Stretch>& all() const { return all_; }
  void add(const Stretch& added) {
    Stretch whole = added;
    const auto first = std::find_if(all_.begin(), all_.end(), [&](const Stretch& s) { return s.end >= whole.begin; });
    auto last = first;
    for (; last != all_.end() && last->begin <= whole.end; ++last)
      whole = {std::min(whole.begin, last->begin), std::max(whole.end, last->end)};
    all_.insert(all_.erase(first, last), whole);
  }
  // f(what of `looked` is not covered).
  template <typename F>
  void outside(const Stretch& looked, F f) const {
    std::uintptr_t at = looked.begin;
    for (const Stretch& s : all_) {
      if (s.end <= at) continue;
      if (s.begin >= looked.end) break;
      if (s.begin > at) f(Stretch{at, s.begin});
      at = s.end;
    }
    if (at < looked.end) f(Stretch{at, looked.end});
  }

 private:
  std::vector<Stretch> all_;
};

struct Group {
  Stretch place, allocation;
  bool fits = true;
};

bool inside(const Stretch& part, const Stretch& whole) { return part.begin >= whole.begin && part.end <= whole.end; }

// What overlaps is one; then what fits and touches, as long as it is no more than kStagedTogether.
std::vector<Group> groups_of(std::vector<Operand> operands) {
  std::sort(operands.begin(), operands.end(),
            [](const Operand& a, const Operand& b) { return a.place.begin < b.place.begin; });
  std::vector<Group> groups;
  for (const Operand& one : operands) {
    const bool ours = one.fits && inside(one.place, one.allocation);
    if (!groups.empty() && one.place.begin < groups.back().place.end) {
      groups.back().place.end = std::max(groups.back().place.end, one.place.end);
      groups.back().fits = groups.back().fits && ours;
    } else {
      groups.push_back({one.place, one.allocation, ours});
    }
  }
  std::vector<Group> joined;
  for (const Group& one : groups) {
    if (!one.fits) continue;
    if (!joined.empty() && joined.back().place.end == one.place.begin && joined.back().allocation == one.allocation &&
        one.place.end - joined.back().place.begin <= kStagedTogether)
      joined.back().place.end = one.place.end;
    else
      joined.push_back(one);
  }
  return joined;
}

}  // namespace

std::vector<Staged> choose_staged(const std::vector<const Op*>& ops, const PinnedAt& pinned, std::size_t least) {
  const std::vector<Operand> operands = operands_of(ops, pinned);
  std::vector<Staged> chosen;
  if (operands.empty()) return chosen;
  for (const Group& group : groups_of(operands)) {
    if (chosen.size() == kStagedMost) break;
    if (group.place.size() < least) continue;
    Covered in, out;
    for (const Operand& one : operands) {
      if (!inside(one.place, group.place)) continue;
      if (one.reads) out.outside(one.place, [&in](const Stretch& missing) { in.add(missing); });
      if (one.writes) out.add(one.place);
    }
    chosen.push_back({group.place, in.all(), out.all()});
  }
  return chosen;
}

void move_operands(Op& op, const Stretch& from, void* to) {
  for_each_tensor(op, [&](Tensor& x) {
    const Stretch place = stretch_of(x);
    if (place.size() > 0 && inside(place, from)) x.data = static_cast<char*>(to) + (place.begin - from.begin);
  });
}

}  // namespace troupe::cuda
