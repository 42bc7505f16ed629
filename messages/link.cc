// The link layer's state machine. Law: between one incarnation of a node and one of another, each envelope sent is
// delivered once, in the order of sending, or not yet; a frame from any other incarnation changes nothing.
#include "messages/link.h"

#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/log.h"
#include "kernels/base/mutant.h"

namespace troupe {

Link::Link(std::uint32_t local_node, std::uint32_t local_incarnation, std::uint32_t peer_node,
           std::uint32_t peer_incarnation, LinkLimits limits, std::int64_t now_us)
    : local_node_(local_node),
      local_incarnation_(local_incarnation),
      peer_node_(peer_node),
      peer_incarnation_(peer_incarnation),
      limits_(limits),
      heard_us_(now_us),
      told_us_(now_us) {}

// Whatever leaves acknowledges all that was delivered.
LinkHeader Link::stamp(std::uint64_t sequence) {
  acknowledgement_owed_ = false;
  return {.from_node = local_node_,
          .from_incarnation = local_incarnation_,
          .to_incarnation = peer_incarnation_,
          .sequence = sequence,
          .acknowledge =
              mutant(Mutant::acknowledged_too_much) && !waiting_.empty() ? waiting_.rbegin()->first : delivered_};
}

void Link::send(const Envelope& envelope, std::int64_t now_us, const std::function<void(Frame)>& out) {
  const std::uint64_t sequence = next_sequence_++;
  Frame frame = encode(envelope, stamp(sequence), limits_.payload_checksum);
  if (!limits_.reliable_transport) {
    CHECK(unacknowledged_.size() < limits_.unacknowledged_max,
          "node {} has left {} frames unacknowledged, credits should have stopped node {} before", peer_node_,
          unacknowledged_.size(), local_node_);
    unacknowledged_.push_back({.sequence = sequence, .frame = frame, .sent_us = now_us});
  }
  ++counters_.sent;
  told_us_ = now_us;
  out(std::move(frame));
}

void Link::receive(DecodedFrame&& frame, std::int64_t now_us, const std::function<void(Envelope&&)>& deliver) {
  const LinkHeader& link = frame.link;
  const bool known = mutant(Mutant::stale_incarnation_accepted) ||
                     (link.from_node == peer_node_ && link.from_incarnation == peer_incarnation_ &&
                      link.to_incarnation == local_incarnation_);
  if (!known || link.acknowledge >= next_sequence_) {
    ++counters_.refused;
    return;
  }
  heard_us_ = now_us;
  if (link.sequence > sent_there_) {
    if (sent_there_ == delivered_) missing_since_us_ = now_us;
    sent_there_ = link.sequence;
  }
  while (!unacknowledged_.empty() && unacknowledged_.front().sequence <= link.acknowledge) unacknowledged_.pop_front();
  if (!frame.envelope) return;
  acknowledgement_owed_ = true;  // a duplicate's too: the acknowledgement that it missed was lost
  if (link.sequence <= delivered_ || waiting_.contains(link.sequence)) {
    ++counters_.duplicates;
    if (mutant(Mutant::duplicate_delivered)) deliver(std::move(*frame.envelope));
    return;
  }
  if (link.sequence - delivered_ > limits_.reorder_max) {
    ++counters_.refused;
    if (limits_.reliable_transport && !std::exchange(window_exceeded_, true))
      log_error("event=frame_beyond_window node={} peer={} sequence={} delivered={}: nobody will resend it",
                local_node_, peer_node_, link.sequence, delivered_);
    return;
  }
  if (link.sequence == delivered_ + 1 && waiting_.empty()) {  // almost always
    missing_since_us_ = now_us;
    delivered_ = link.sequence;
    ++counters_.delivered;
    return deliver(std::move(*frame.envelope));
  }
  if (link.sequence != delivered_ + 1) ++counters_.reordered;
  waiting_.emplace(link.sequence, std::move(*frame.envelope));
  if (link.sequence == delivered_ + 1) missing_since_us_ = now_us;  // what is missing now is another one
  deliver_ready(deliver);
}

// `deliver` may send on this link: the state is whole before each call.
void Link::deliver_ready(const std::function<void(Envelope&&)>& deliver) {
  while (!waiting_.empty() && (waiting_.begin()->first == delivered_ + 1 || mutant(Mutant::gap_ignored))) {
    Envelope envelope = std::move(waiting_.begin()->second);
    delivered_ = waiting_.begin()->first;
    waiting_.erase(waiting_.begin());
    ++counters_.delivered;
    deliver(std::move(envelope));
  }
}

void Link::tick(std::int64_t now_us, const std::function<void(Frame)>& out) {
  for (Unacknowledged& kept : unacknowledged_) {
    if (now_us - kept.sent_us < limits_.resend_after_us) continue;
    restamp(kept.frame, stamp(kept.sequence));
    kept.sent_us = now_us;
    ++counters_.resent;
    out(kept.frame);
  }
  // Over a reliable transport nothing is kept, so nobody waits for an acknowledgement.
  const bool owed = acknowledgement_owed_ && !limits_.reliable_transport;
  if (!owed && now_us - told_us_ < limits_.heartbeat_us) return;
  told_us_ = now_us;
  out(encode_acknowledgement(stamp(next_sequence_ - 1)));
}

}  // namespace troupe
