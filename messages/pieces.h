// Payloads in device memory travel by themselves, beside the frame that they belong to: here the two come together
// again. The law: a frame is handed over once, when it and all its pieces are here, whatever came first.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "messages/transport.h"

namespace troupe {

// What a frame with pieces says before its own header, as bytes. A sender is one transport of one process, and numbers
// its frames with pieces.
struct PiecesNote {
  std::uint64_t sender = 0, number = 0, pieces = 0;
};

// Bytes of its own that a transport puts before a frame's header.
void put_before(FrameHeader& header, std::span<const std::byte> bytes);
// Puts the note before the frame's header.
void write_note(Frame& frame, const PiecesNote& note);
// Takes it off again; empty: these bytes begin with none.
std::optional<PiecesNote> take_note(Frame& frame);

class PieceJoiner {
 public:
  // Each gives the frame if that makes it whole. What belongs to no frame (a piece that came before, a number past the
  // frame's) is dropped, and so is whatever a forgotten sender sent.
  std::optional<Frame> add(const PiecesNote& note, Frame frame);
  std::optional<Frame> add(std::uint64_t sender, std::uint64_t number, std::uint64_t index, Payload piece);
  void forget(std::uint64_t sender);
  std::size_t waiting() const { return unjoined_.size(); }
  static constexpr std::size_t kWaitingMax = 4096;  // frames; more are dropped, and missed by the link

 private:
  struct Unjoined {
    std::optional<Frame> frame;
    std::uint64_t pieces = 0;  // of the frame
    std::map<std::uint64_t, Payload> come;
  };
  using Key = std::pair<std::uint64_t, std::uint64_t>;  // sender, number
  Unjoined* find(const Key& key);
  std::optional<Frame> take_if_whole(const Key& key);

  std::map<Key, Unjoined> unjoined_;
  std::set<std::uint64_t> gone_;
};

}  // namespace troupe
