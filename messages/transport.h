// Transport: carries frames between nodes (processes). May reorder, and a broken one may lose or repeat: the link layer
// above makes it exactly once and in order between live incarnations. One per node, used by its loop thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "kernels/base/recycled.h"
#include "messages/payload.h"

namespace troupe {

using FrameHeader = RecycledVector<std::byte>;
using FramePayloads = RecycledVector<Payload>;
// What travels: a small encoded header and the message's payloads, concatenated by the transport, never by the sender.
struct Frame {
  FrameHeader header;      // at most kFrameHeaderMax
  FramePayloads payloads;  // sent: any number; received: exactly one (or none), the concatenation
};
constexpr std::size_t kFrameHeaderMax = 1 << 20;
constexpr std::size_t kFramePayloadMax = std::size_t{1} << 40;

class Transport {
 public:
  virtual ~Transport() = default;
  // This node's address blob, to be given to peers by whatever introduces them.
  virtual std::string local_address() const = 0;
  virtual void connect(std::uint32_t node, const std::string& address) = 0;
  // Takes the frame; the payloads stay referenced until they have left. Frames to unknown or lost nodes are dropped.
  virtual void send(std::uint32_t node, Frame frame) = 0;
  // Makes progress and hands over what has arrived. Returns whether anything happened.
  virtual bool poll(const std::function<void(Frame)>& deliver) = 0;
  // Prepares to sleep: returns false if there is still work to poll. wake_fd is readable when there is new work.
  virtual bool arm() = 0;
  virtual int wake_fd() const = 0;
  // Stop sending to a node that is gone.
  virtual void forget(std::uint32_t node) = 0;
};

}  // namespace troupe
