// The link layer: per pair of process incarnations, sequence numbers, cumulative acknowledgement, bounded resend,
// duplicate window and reorder. Above it: exactly once, in order, between live incarnations. Actors never retry.
// Sans-io: it is given time, frames and envelopes, and returns what to do.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>

#include "messages/codec.h"

namespace troupe {

struct LinkLimits {
  std::int64_t heartbeat_us = 500'000;  // an idle link says this often that its end lives
  std::int64_t resend_after_us = 200'000;
  std::size_t unacknowledged_max = 4096;  // frames kept for resend; more is a CHECK: credits bound it below this
  std::size_t reorder_max = 4096;
  bool payload_checksum = false;
  bool reliable_transport = true;  // UCX, sockets: keep nothing for resend, only order and check
};

struct LinkCounters {
  std::uint64_t sent = 0, delivered = 0, resent = 0, duplicates = 0, refused = 0, reordered = 0;
};

class Link {
 public:
  Link(std::uint32_t local_node, std::uint32_t local_incarnation, std::uint32_t peer_node,
       std::uint32_t peer_incarnation, LinkLimits limits, std::int64_t now_us = 0);
  void send(const Envelope& envelope, std::int64_t now_us, const std::function<void(Frame)>& out);
  // A decoded frame from this peer; delivers zero or more envelopes in order.
  void receive(DecodedFrame&& frame, std::int64_t now_us, const std::function<void(Envelope&&)>& deliver);
  // Resends what is overdue, acknowledges what is owed, and says now and then that this end lives.
  void tick(std::int64_t now_us, const std::function<void(Frame)>& out);
  const LinkCounters& counters() const { return counters_; }
  std::uint32_t peer_incarnation() const { return peer_incarnation_; }
  std::size_t unacknowledged() const { return unacknowledged_.size(); }
  std::size_t early() const { return waiting_.size(); }  // frames behind one that is missing
  std::int64_t heard_us() const { return heard_us_; }    // when the last frame of this peer's incarnation came
  // Since when a message that was sent is missing, or a later one waits for it; -1: none is.
  std::int64_t missing_since_us() const { return delivered_ < sent_there_ ? missing_since_us_ : -1; }

 private:
  struct Unacknowledged {
    std::uint64_t sequence;
    Frame frame;
    std::int64_t sent_us;
  };
  LinkHeader stamp(std::uint64_t sequence);
  void deliver_ready(const std::function<void(Envelope&&)>& deliver);
  std::uint32_t local_node_, local_incarnation_, peer_node_, peer_incarnation_;
  LinkLimits limits_;
  std::uint64_t next_sequence_ = 1;
  std::uint64_t delivered_ = 0;   // every sequence up to this one has been delivered here
  std::uint64_t sent_there_ = 0;  // the last that the peer is known to have sent
  std::int64_t missing_since_us_ = 0;
  bool acknowledgement_owed_ = false;  // something arrived since the last frame left
  std::deque<Unacknowledged> unacknowledged_;
  RecycledMap<std::uint64_t, Envelope> waiting_;  // arrived early
  bool window_exceeded_ = false;                  // it was said once
  std::int64_t heard_us_, told_us_;               // a frame came, a frame left
  LinkCounters counters_;
};

}  // namespace troupe
