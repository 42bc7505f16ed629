// What is asked of a node's inspector thread, and its answers, as bytes (schema.capnp, InspectRequest and InspectReply).
// Whatever bytes come, reading returns a value or nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "messages/message.h"

namespace troupe {

struct ReadSnapshot {};
struct Subscribe {
  std::uint32_t every_ms = 1000;
};
struct ReadJournal {
  std::uint64_t first = 0;
  std::uint32_t most = 0;
};
struct ReadConfig {};
struct KillNode {};
struct Inject {
  std::vector<std::byte> frame;  // one encoded frame, header alone (messages/codec.h)
};

struct InspectRequest {
  std::string token;
  std::variant<ReadSnapshot, Subscribe, ReadJournal, ReadConfig, Pause, KillNode, Inject> what;
};

struct NodeRefused {
  std::string sentence;
};
struct Snapshot {
  std::int64_t now_us = 0;
  std::vector<std::byte> board;
};
struct JournalPart {
  std::uint64_t written = 0;
  std::vector<std::byte> journal;
};
struct ConfigText {
  std::string toml;
};
struct Said {
  std::string sentence;
};
using InspectReply = std::variant<NodeRefused, Snapshot, JournalPart, ConfigText, Said>;

constexpr std::size_t kInspectRequestMax = std::size_t{64} << 10;
constexpr std::size_t kInspectReplyMax = std::size_t{256} << 20;

// With the length before it.
std::vector<std::byte> encode(const InspectRequest& request);
std::vector<std::byte> encode(const InspectReply& reply);
// Without it. Empty: these bytes are none.
std::optional<InspectRequest> decode_inspect_request(const std::byte* bytes, std::size_t size);
std::optional<InspectReply> decode_inspect_reply(const std::byte* bytes, std::size_t size);

}  // namespace troupe
