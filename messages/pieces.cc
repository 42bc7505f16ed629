#include "messages/pieces.h"

#include <cstring>

#include "kernels/base/log.h"

namespace troupe {

void put_before(FrameHeader& header, std::span<const std::byte> bytes) {
  header.insert(header.begin(), bytes.begin(), bytes.end());
}

void write_note(Frame& frame, const PiecesNote& note) { put_before(frame.header, std::as_bytes(std::span(&note, 1))); }

std::optional<PiecesNote> take_note(Frame& frame) {
  PiecesNote note;
  if (frame.header.size() < sizeof note) return std::nullopt;
  std::memcpy(&note, frame.header.data(), sizeof note);
  if (note.pieces == 0 || note.pieces > kFrameDeviceMax) return std::nullopt;
  frame.header.erase(frame.header.begin(), frame.header.begin() + sizeof note);
  return note;
}

PieceJoiner::Unjoined* PieceJoiner::find(const Key& key) {
  if (gone_.contains(key.first)) return nullptr;
  const auto found = unjoined_.find(key);
  if (found != unjoined_.end()) return &found->second;
  if (unjoined_.size() >= kWaitingMax) {
    log_warning("event=frame_dropped reason=\"{} frames wait for their payloads on the device\"", unjoined_.size());
    return nullptr;
  }
  return &unjoined_[key];
}

std::optional<Frame> PieceJoiner::take_if_whole(const Key& key) {
  const auto found = unjoined_.find(key);
  Unjoined& one = found->second;
  if (!one.frame || one.come.size() < one.pieces) return std::nullopt;
  std::optional<Frame> frame = std::move(one.frame);
  for (auto& [index, piece] : one.come) frame->device.push_back(std::move(piece));
  unjoined_.erase(found);
  return frame;
}

std::optional<Frame> PieceJoiner::add(const PiecesNote& note, Frame frame) {
  const Key key{note.sender, note.number};
  Unjoined* const one = find(key);
  if (one == nullptr || one->frame) return std::nullopt;
  one->frame = std::move(frame);
  one->pieces = note.pieces;
  std::erase_if(one->come, [&](const auto& item) { return item.first >= note.pieces; });
  return take_if_whole(key);
}

std::optional<Frame> PieceJoiner::add(std::uint64_t sender, std::uint64_t number, std::uint64_t index, Payload piece) {
  const Key key{sender, number};
  Unjoined* const one = index < kFrameDeviceMax ? find(key) : nullptr;
  if (one == nullptr || (one->frame && index >= one->pieces) || !one->come.emplace(index, std::move(piece)).second)
    return std::nullopt;
  return take_if_whole(key);
}

void PieceJoiner::forget(std::uint64_t sender) {
  gone_.insert(sender);
  std::erase_if(unjoined_, [&](const auto& item) { return item.first.first == sender; });
}

}  // namespace troupe
