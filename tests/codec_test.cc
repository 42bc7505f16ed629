// The codec: every message comes back bit for bit, and no bytes whatever do harm.
#include <catch2/catch.hpp>

#include <set>

#include "messages/checksum.h"
#include "messages/codec.h"
#include "tests/support/random_message.h"

using namespace troupe;

namespace {

const LinkHeader kLink{.from_node = 3, .from_incarnation = 2, .to_incarnation = 7, .sequence = 11, .acknowledge = 10};
constexpr std::size_t kPreludeSize = 56;

std::string problem_of(const Frame& frame) {
  std::string problem;
  const bool decoded = decode(frame, problem).has_value();
  CHECK(decoded == problem.empty());
  return problem;
}

// Reads every byte that a decoded message claims to own, for the sanitizers to see.
std::size_t touch(const Envelope& envelope) {
  Frame again = encode(envelope, kLink, true);
  return again.header.size();
}

// Decodes what must not be trusted; true if it became a message.
bool survives(const Frame& frame) {
  std::string problem;
  const auto decoded = decode(frame, problem);
  REQUIRE(decoded.has_value() == problem.empty());
  return decoded && (!decoded->envelope || touch(*decoded->envelope) > 0);
}

Frame random_frame(MessageDraw& draw, PayloadPool& pool) {
  return as_received(encode(draw.envelope(draw.below(kWireKinds)), kLink, draw.below(2) == 1), pool);
}

Frame random_bytes(MessageDraw& draw) {
  Frame frame;
  frame.header.resize(draw.below(300));
  for (std::byte& byte : frame.header) byte = static_cast<std::byte>(draw.word());
  if (draw.below(2) == 1) frame.payloads.push_back(draw.payload(1 + draw.below(200)));
  return frame;
}

// A few bytes, a truncation, an extension or a wrong number of payload bytes.
void mutate(Frame& frame, MessageDraw& draw, std::size_t first) {
  const std::size_t count = 1 + draw.below(4);
  for (std::size_t i = 0; i < count && frame.header.size() > first; ++i)
    frame.header[first + draw.below(frame.header.size() - first)] = static_cast<std::byte>(draw.word());
  switch (draw.below(8)) {
    case 0:
      frame.header.resize(first + draw.below(frame.header.size() - first + 1));
      break;
    case 1:
      frame.header.resize(frame.header.size() + draw.below(64));
      break;
    case 2:
      if (!frame.payloads.empty()) frame.payloads[0].size = draw.below(frame.payloads[0].size + 1);
      break;
    default:
      break;
  }
}

void throw_bytes_at_the_codec(std::uint64_t rounds) {
  PayloadPool pool;
  std::size_t decoded = 0;
  for (std::uint64_t seed = 0; seed < rounds; ++seed) {
    MessageDraw draw(seed, 500);
    decoded += survives(random_bytes(draw));
    Frame frame = random_frame(draw, pool);
    mutate(frame, draw, 0);
    decoded += survives(frame);
    // Under a right prelude and checksum the mutation reaches the message itself.
    frame = random_frame(draw, pool);
    mutate(frame, draw, kPreludeSize);
    const auto size = static_cast<std::uint32_t>(frame.header.size());
    std::memcpy(frame.header.data() + 8, &size, sizeof size);
    restamp(frame, kLink);
    decoded += survives(frame);
  }
  CHECK((decoded > 0 && decoded < 3 * rounds));
}

}  // namespace

TEST_CASE("every kind of message comes back from its bytes bit for bit", "[codec]") {
  PayloadPool pool;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    MessageDraw draw(seed);
    for (std::size_t kind = 0; kind < kWireKinds; ++kind) {
      const Envelope sent = draw.envelope(kind);
      INFO(kind_of(sent.message) << " from seed " << seed);
      std::string problem;
      const auto decoded = decode(as_received(encode(sent, kLink, seed % 2 == 0), pool), problem);
      REQUIRE(problem == "");
      REQUIRE(same_envelope(sent, *decoded->envelope));
      REQUIRE(
          (decoded->link.from_node == 3 && decoded->link.from_incarnation == 2 && decoded->link.to_incarnation == 7));
      REQUIRE((decoded->link.sequence == 11 && decoded->link.acknowledge == 10));
    }
  }
}

TEST_CASE("every payload of a received message starts at a multiple of 64", "[codec]") {
  PayloadPool pool;
  MessageDraw draw(1);
  TokenBatch batch;
  batch.ids = draw.payload(1);
  batch.targets = draw.payload(64);
  batch.positions = draw.payload(65);  // mtp_targets is empty
  batch.spans = draw.payload(7);
  std::string problem;
  const Frame frame = as_received(encode({.from = {}, .to = {}, .message = batch}, kLink, true), pool);
  const auto received = std::get<TokenBatch>(decode(frame, problem)->envelope->message);
  for (const Payload& payload : {received.ids, received.targets, received.positions, received.spans})
    CHECK(reinterpret_cast<std::uintptr_t>(payload.data.get()) % 64 == 0);
  CHECK(frame.payloads[0].size == 64 + 64 + 128 + 7);
  CHECK(same(received, batch));
}

TEST_CASE("payloads on the device stay single, are in no checksum, and find their places again", "[codec]") {
  PayloadPool pool;
  std::size_t single = 0;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    MessageDraw draw(seed, 300, 0.5);
    for (std::size_t kind = 0; kind < kWireKinds; ++kind) {
      const Envelope sent = draw.envelope(kind);
      const Frame frame = as_received(encode(sent, kLink, true), pool);
      single += frame.device.size();
      REQUIRE(is_on_device(sent.message) == !frame.device.empty());
      for (const Payload& payload : frame.device) payload.data.get()[0] ^= std::byte{1};  // nobody looks
      std::string problem;
      const auto decoded = decode(frame, problem);
      REQUIRE(problem == "");
      REQUIRE(same_envelope(sent, *decoded->envelope));
    }
  }
  CHECK(single > 200);
}

TEST_CASE("a payload on the device that didn't come, or came as another, is named", "[codec]") {
  PayloadPool pool;
  MessageDraw draw(6);
  ExpertResult result{.key = {}, .rows = 1, .stashed = false, .hidden = draw.payload(100), .dots = draw.payload(8)};
  result.hidden.on_device = result.dots.on_device = true;
  const Frame good = as_received(encode({.from = {}, .to = {}, .message = result}, kLink, true), pool);
  REQUIRE(problem_of(good) == "");
  const auto problem_after = [&](const std::function<void(FramePayloads&)>& change) {
    Frame frame = good;
    change(frame.device);
    return problem_of(frame);
  };
  CHECK_THAT(problem_after([](auto& pieces) { pieces.pop_back(); }), Catch::Contains("8 bytes on the device did not"));
  CHECK_THAT(problem_after([](auto& pieces) { std::swap(pieces[0], pieces[1]); }), Catch::Contains("100 bytes on the"));
  CHECK_THAT(problem_after([](auto& pieces) { pieces[0].on_device = false; }), Catch::Contains("100 bytes on the"));
  CHECK_THAT(problem_after([](auto& pieces) { pieces.push_back(pieces[0]); }), Catch::Contains("of 3"));
  Frame bare = encode_acknowledgement(kLink);
  bare.device = good.device;
  CHECK_THAT(problem_of(bare), Catch::Contains("carries a payload"));
}

TEST_CASE("a received payload keeps the frame's bytes alive", "[codec]") {
  PayloadPool pool;
  MessageDraw draw(2);
  const SharedTensor sent{.version = 1, .attempt = 0, .values = draw.payload(5000)};
  Payload values;
  {
    std::string problem;
    Frame frame = as_received(encode({.from = {}, .to = {}, .message = sent}, kLink, false), pool);
    values = std::get<SharedTensor>(decode(frame, problem)->envelope->message).values;
  }
  CHECK(same(values, sent.values));
  CHECK(pool.bytes_in_use() > 0);
  values = {};
  CHECK(pool.bytes_in_use() == 0);
}

TEST_CASE("a bare acknowledgement carries only its link fields", "[codec]") {
  const Frame frame = encode_acknowledgement(
      {.from_node = 1, .from_incarnation = 4, .to_incarnation = 5, .sequence = 7, .acknowledge = 9});
  std::string problem;
  const auto decoded = decode(frame, problem);
  REQUIRE(problem == "");
  CHECK(!decoded->envelope);
  CHECK((decoded->link.sequence == 7 && decoded->link.acknowledge == 9 && decoded->link.from_incarnation == 4));
}

TEST_CASE("what is wrong with a frame is named", "[codec]") {
  PayloadPool pool;
  MessageDraw draw(3);
  const Envelope envelope{
      .from = {}, .to = {}, .message = SharedTensor{.version = 1, .attempt = 0, .values = draw.payload(100)}};
  Frame frame = as_received(encode(envelope, kLink, true), pool);
  REQUIRE(problem_of(frame) == "");
  SECTION("magic") {
    frame.header[0] = std::byte{0};
    CHECK_THAT(problem_of(frame), Catch::Contains("magic"));
  }
  SECTION("version") {
    frame.header[4] = std::byte{9};
    CHECK_THAT(problem_of(frame), Catch::Contains("version 9"));
  }
  SECTION("a byte of the message") {
    frame.header[70] ^= std::byte{1};
    CHECK_THAT(problem_of(frame), Catch::Contains("checksum"));
  }
  SECTION("a byte of the prelude") {
    frame.header[25] ^= std::byte{1};
    CHECK_THAT(problem_of(frame), Catch::Contains("checksum"));
  }
  SECTION("a byte of the payload") {
    frame.payloads[0].data.get()[99] ^= std::byte{1};
    CHECK_THAT(problem_of(frame), Catch::Contains("payload's checksum"));
  }
  SECTION("a cut payload") {
    frame.payloads[0].size = 99;
    CHECK_THAT(problem_of(frame), Catch::Contains("99 bytes arrived, 100 were sent"));
  }
  SECTION("no payload") {
    frame.payloads.clear();
    CHECK_THAT(problem_of(frame), Catch::Contains("0 bytes arrived"));
  }
  SECTION("a cut header") {
    frame.header.resize(20);
    CHECK_THAT(problem_of(frame), Catch::Contains("cut short"));
  }
  SECTION("a longer header") {
    frame.header.resize(200);
    CHECK_THAT(problem_of(frame), Catch::Contains("200 bytes says"));
  }
  SECTION("payloads in pieces") {
    frame.payloads.push_back(frame.payloads[0]);
    CHECK_THAT(problem_of(frame), Catch::Contains("pieces"));
  }
}

TEST_CASE("a number that is no value of its enum, and a kind that nobody knows, are refused", "[codec]") {
  PayloadPool pool;
  const Credit credit{.channel = Channel::snapshot, .layer = 1, .count = 2, .attempt = 3};
  const Frame good =
      as_received(encode({.from = {Role::stage, 1}, .to = {Role::loader, 0}, .message = credit}, kLink, false), pool);
  std::set<std::string> problems;
  for (std::size_t at = kPreludeSize; at + 2 <= good.header.size(); at += 2) {
    Frame frame = good;
    frame.header[at] = frame.header[at + 1] = std::byte{0x77};
    restamp(frame, kLink);
    problems.insert(problem_of(frame));
  }
  CHECK(problems.contains("an enum holds 30583, must be below 10"));  // Role
  CHECK(problems.contains("an enum holds 30583, must be below 4"));   // Channel
  CHECK(problems.contains("a kind of message that this program doesn't know: use one build everywhere"));
}

TEST_CASE("payload sizes that don't account for every byte are refused", "[codec]") {
  PayloadPool pool;
  MessageDraw draw(4);
  const Envelope envelope{
      .from = {}, .to = {}, .message = SharedTensor{.version = 1, .attempt = 0, .values = draw.payload(1000)}};
  Frame frame = as_received(encode(envelope, kLink, false), pool);
  const std::uint64_t size = 1000;
  std::size_t found = 0;
  for (std::size_t at = kPreludeSize; at + 8 <= frame.header.size(); at += 8)
    if (std::memcmp(&frame.header[at], &size, sizeof size) == 0) found = at;
  REQUIRE(found > 0);
  const auto with_size = [&](std::uint64_t wrong) {
    std::memcpy(&frame.header[found], &wrong, sizeof wrong);
    restamp(frame, kLink);
    return problem_of(frame);
  };
  CHECK_THAT(with_size(999), Catch::Contains("accounts for 999 payload bytes of 1000"));
  CHECK_THAT(with_size(1001), Catch::Contains("leaves the frame"));
  CHECK_THAT(with_size(~std::uint64_t{0} >> 1), Catch::Contains("leaves the frame"));
  CHECK_THAT(with_size(~std::uint64_t{0}), Catch::Contains("on the device did not come"));
  CHECK(with_size(1000) == "");
}

TEST_CASE("bytes from anywhere give a problem or a message, never a crash", "[codec]") {
  throw_bytes_at_the_codec(2000);
}
TEST_CASE("bytes from anywhere give a problem or a message, at length", "[codec][.large]") {
  throw_bytes_at_the_codec(100'000);
}

TEST_CASE("the checksum is CRC-32C, with the instruction and without it", "[codec]") {
  const std::string digits = "123456789";
  CHECK(crc32c(0, std::as_bytes(std::span(digits))) == 0xE3069283);  // the value that RFC 3720's polynomial gives
  MessageDraw draw(5);
  for (std::size_t size = 0; size < 100; ++size) {
    const Payload payload = draw.payload(size);
    const std::span bytes(payload.data.get(), payload.size);
    CHECK(crc32c(0, bytes) == crc32c_portable(0, bytes));
    CHECK(crc32c(crc32c(0, bytes.first(size / 3)), bytes.subspan(size / 3)) == crc32c(0, bytes));
  }
}

TEST_CASE("addresses, work and messages have names", "[codec]") {
  CHECK(to_string(Address{.role = Role::expert_shard, .index = 3}) == "expert_shard 3");
  CHECK(to_string(WorkKey{.direction = Direction::backward, .step = 3, .microbatch = 2, .layer = 1}) ==
        "train backward step 3 attempt 0 microbatch 2 layer 1 chunk 0");
  CHECK(kind_of(Message(ExpertBatch{})) == std::string("ExpertBatch"));
  CHECK(kind_of(Message(DiskDone{})) == std::string("DiskDone"));
}
