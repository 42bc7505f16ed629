// Envelope <-> Frame. With codec_inspect.h the only user of Cap'n Proto. Bytes from the wire never crash it and never become a message
// unless magic, version, length, checksum, enum ranges, counts and payload sizes all agree.
//
// Frame header = fixed prelude (little endian) + Cap'n Proto message:
//   magic u32 "TRPE" | version u16 | flags u16 | header bytes u32 | crc32c of the header u32 |
//   from node u32 | from incarnation u32 | sequence u64 | acknowledge u64 | payload bytes u64 | payload crc32c u32 |
//   to incarnation u32 | capnp bytes...   (the crc is of all header bytes but its own four, which count as zeros)
#pragma once

#include <optional>
#include <string>

#include "messages/message.h"
#include "messages/transport.h"

namespace troupe {

struct LinkHeader {
  std::uint32_t from_node = 0, from_incarnation = 0, to_incarnation = 0;
  std::uint64_t sequence = 0;     // from 1; a bare acknowledgement's: the last that was sent
  std::uint64_t acknowledge = 0;  // every sequence up to this one has been delivered
};

struct DecodedFrame {
  LinkHeader link;
  std::optional<Envelope> envelope;  // absent in a bare acknowledgement
};

// Of all payloads of a message.
std::uint64_t payload_bytes(const Message& message);
// Whether any payload of it is in the device's memory.
bool is_on_device(const Message& message);
// Payloads in shared memory start at multiples of 64 in the concatenation, pieces of zeros between; those on the device
// stay single. The checksum is of the first: nobody here can read the others.
Frame encode(const Envelope& envelope, const LinkHeader& link, bool payload_checksum);
// A frame that carries no message: what was sent, and what has been delivered.
Frame encode_acknowledgement(const LinkHeader& link);
// Sets only the link fields of an encoded frame again (resend with a newer acknowledgement).
void restamp(Frame& frame, const LinkHeader& link);
// nullopt and a sentence in `problem` for anything wrong.
std::optional<DecodedFrame> decode(const Frame& frame, std::string& problem);
// Whether a frame of ours brings an M.
template <typename M>
bool brings(const Frame& frame);
extern template bool brings<PartialSums>(const Frame& frame);
extern template bool brings<ReducedSums>(const Frame& frame);
extern template bool brings<ShadowGradient>(const Frame& frame);
// What a person writes: schema.capnp's Envelope as JSON, {"toRole": "conductor", "stop": {"reason": "enough"}}, without
// payloads. nullopt and a sentence in `problem` for anything wrong.
std::optional<Envelope> envelope_from_json(const std::string& text, std::string& problem);

}  // namespace troupe
