// OrderedSender: one credit channel's sending side. Entries leave in increasing sequence, each item costs a credit, and
// an entry may have no items (it still takes its turn). Overtaking on a channel is impossible: that is half of why the
// credits can't deadlock (the other half is the receiver's order).
#pragma once

#include <cstdint>
#include <deque>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/recycled.h"

namespace troupe {

template <typename Item>
class OrderedSender {
 public:
  void reset() { *this = OrderedSender(); }
  void grant(int count) { credits_ += count; }
  void enter(std::int64_t sequence, RecycledVector<Item> items) {
    CHECK(sequence >= next_ && !waiting_.contains(sequence), "sequence {} enters twice (next is {})", sequence, next_);
    waiting_[sequence] = Items(std::make_move_iterator(items.begin()), std::make_move_iterator(items.end()));
  }
  // Calls send(item) for everything that may leave now.
  template <typename Send>
  void drain(Send send) {
    for (auto front = waiting_.begin(); front != waiting_.end() && front->first == next_; front = waiting_.begin()) {
      while (!front->second.empty() && credits_ > 0) {
        --credits_;
        send(std::move(front->second.front()));
        front->second.pop_front();
      }
      if (!front->second.empty()) return;
      waiting_.erase(front);
      ++next_;
    }
  }
  int credits() const { return credits_; }
  // What leaves next when a credit comes; null: nothing that could.
  const Item* front() const {
    const auto first = waiting_.begin();
    return first == waiting_.end() || first->first != next_ || first->second.empty() ? nullptr : &first->second.front();
  }
  bool entered(std::int64_t sequence) const { return sequence < next_ || waiting_.contains(sequence); }
  // Of an entry's items those that have yet to leave.
  std::size_t unsent(std::int64_t sequence) const {
    const auto entry = waiting_.find(sequence);
    return entry == waiting_.end() ? 0 : entry->second.size();
  }
  std::size_t waiting() const { return waiting_.size(); }
  std::int64_t next() const { return next_; }

 private:
  using Items = std::deque<Item, Recycled<Item>>;
  RecycledMap<std::int64_t, Items> waiting_;
  std::int64_t next_ = 0;
  int credits_ = 0;
};

}  // namespace troupe
