// NodeWatch: puts what the device's threads do on the node's board and into its journal.
#pragma once

#include <utility>
#include <vector>

#include "actors/board.h"
#include "actors/journal.h"
#include "kernels/watch.h"

namespace troupe {

class NodeWatch final : public Watch {
 public:
  // Either may be null. Both outlive this. actors: those that the node will have, in the order in which they are added.
  NodeWatch(Board* board, Journal* journal, std::vector<Address> actors)
      : board_(board), journal_(journal), actors_(std::move(actors)) {}
  Board* board() const { return board_; }
  Journal* journal() const { return journal_; }
  const std::vector<Address>& actors() const { return actors_; }

  void begins(std::size_t thread, const std::vector<Segment>& segments, std::int64_t now_us) override {
    if (board_ != nullptr) board_->computes(thread, segments, now_us);
  }
  void ends(std::size_t thread, const std::vector<Segment>& segments, std::int64_t begin_us,
            std::int64_t now_us) override {
    if (board_ != nullptr) board_->computed(thread, segments, now_us - begin_us);
    if (journal_ != nullptr) journal_->ran(thread, segments, actors_, begin_us, now_us);
  }

 private:
  Board* board_;
  Journal* journal_;
  const std::vector<Address> actors_;  // by handle
};

}  // namespace troupe
