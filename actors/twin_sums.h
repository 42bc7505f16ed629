// TwinSums: what the twins of a stage have sent of their sums, for the one replica that holds this: everybody's partial
// sums of the part that it adds, and the other parts as their adders send them. A twin may be a commit ahead with its
// partial sums; what is added is of the own step, since this replica's sums are in it. The bound: one sum of all elements
// at a time for each kind of message, whatever the number of replicas.
#pragma once

#include <tuple>
#include <utility>
#include <vector>

#include "actors/config.h"
#include "actors/rules/sum_range.h"
#include "kernels/base/recycled.h"
#include "messages/message.h"

namespace troupe {

class TwinSums {
 public:
  // elements: that a lane accumulates.
  TwinSums(const Config& config, int replica, std::int64_t elements);

  // A part, by the replica that adds it, as its messages cut it.
  const std::vector<SumRange>& ranges(int adder) const { return ranges_[static_cast<std::size_t>(adder)]; }
  // All others, in the order in which to send to them: at every turn the replicas are in pairs, so each hears from one alone,
  // and neighbours are first.
  std::vector<int> twins() const;

  // Filed under `step`. What doesn't fit is a programmer's error.
  void take(const PartialSums& sums, std::int64_t step);
  void take(const ReducedSums& sums);
  // Whether all of a twin's partial sums for this replica's part are here; all of the part that it adds.
  bool has_partial(std::int64_t step, int twin) const;
  bool has_reduced(int adder) const;
  // Every replica's partial sums of a range of the own part, by replica; null: the own.
  std::vector<const float*> partial(std::int64_t step, const SumRange& range) const;
  const Payload& reduced(const SumRange& range) const { return reduced_.at(range.begin); }

  void forget_partial(std::int64_t step);  // of this step and those before
  void forget_reduced() { reduced_.clear(); }
  void clear();

 private:
  int replica_;
  std::vector<std::vector<SumRange>> ranges_;                                  // [adder]
  RecycledMap<std::tuple<std::int64_t, std::int64_t, int>, Payload> partial_;  // by step, element and replica
  RecycledMap<std::int64_t, Payload> reduced_;                                 // by element
};

}  // namespace troupe
