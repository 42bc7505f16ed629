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
// What travels: a small encoded header and the message's payloads. Those in shared memory are concatenated by the
// transport, never by the sender; those in the device's memory arrive one by one as they were sent, in the receiver's
// device memory, and nobody looks into them on the way.
struct Frame {
  FrameHeader header;         // at most kFrameHeaderMax
  FramePayloads payloads;     // sent: any number; received: exactly one (or none), the concatenation
  FramePayloads device = {};  // as many, of the same sizes and in the same order, on both ends
};
constexpr std::size_t kFrameHeaderMax = 1 << 20;
constexpr std::size_t kFramePayloadMax = std::size_t{1} << 40;
constexpr std::size_t kFrameDeviceMax = 64;  // payloads in device memory

class Transport {
 public:
  virtual ~Transport() = default;
  // This node's address blob, to be given to peers by whatever introduces them.
  virtual std::string local_address() const = 0;
  virtual void connect(std::uint32_t node, const std::string& address) = 0;
  // Whether payloads in this process's device memory reach that node's. While the node is connected it turns true at
  // most once, and never false again.
  virtual bool carries_device_memory(std::uint32_t) const { return false; }
  // Takes the frame; the payloads stay referenced until they have left. Frames to unknown or lost nodes are dropped.
  // REQUIRES: carries_device_memory(node), if any payload is on the device.
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
