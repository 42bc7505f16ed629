// The link layer over a broken transport: exactly once and in order, between these two incarnations and no others.
#include <catch2/catch.hpp>

#include "messages/in_process.h"
#include "messages/link.h"
#include "tests/support/random_message.h"

using namespace troupe;

namespace {

constexpr LinkLimits kLossy{.resend_after_us = 5'000, .payload_checksum = true, .reliable_transport = false};

// Two nodes in virtual time, one millisecond a turn. Each message carries its number and random bytes.
struct Pair {
  Pair(const InProcessFaults& faults, const LinkLimits& limits)
      : draw(faults.seed, 2000),
        transports(make_in_process_transports(2, faults)),
        links{Link(0, 1, 1, 1, limits), Link(1, 1, 0, 1, limits)} {}

  auto to_peer(std::uint32_t node) {
    return [this, node](Frame frame) { transports[node]->send(1 - node, std::move(frame)); };
  }

  void send(std::uint32_t node) {
    const SharedTensor message{.version = sent[node]++, .attempt = node, .values = draw.payload(draw.below(200))};
    expected[1 - node].push_back(message.values);
    links[node].send({.from = {}, .to = {}, .message = message}, now_us, to_peer(node));
  }

  void receive(std::uint32_t node) {
    transports[node]->poll([&](const Frame& frame) {
      std::string problem;
      auto decoded = decode(frame, problem);
      if (!decoded) {
        ++torn;
        return;
      }
      links[node].receive(std::move(*decoded), now_us, [&](const Envelope& envelope) {
        const auto& message = std::get<SharedTensor>(envelope.message);
        right = right && message.version == received[node] &&
                same(message.values, expected[node][std::size_t(received[node])]);
        ++received[node];
      });
    });
  }

  void turn() {
    now_us += 1000;
    for (const std::uint32_t node : {0u, 1u}) {
      receive(node);
      links[node].tick(now_us, to_peer(node));
    }
  }

  bool all_received() const { return received[0] == sent[1] && received[1] == sent[0]; }

  MessageDraw draw;
  std::vector<std::unique_ptr<Transport>> transports;
  std::array<Link, 2> links;
  std::array<std::int64_t, 2> sent{}, received{};
  std::array<std::vector<Payload>, 2> expected;
  std::int64_t now_us = 0;
  std::uint64_t torn = 0;
  bool right = true;
};

DecodedFrame received_by_decode(const Frame& frame) {
  PayloadPool pool;
  std::string problem;
  return *decode(as_received(frame, pool), problem);
}

Frame frame_from(Link& link, std::int64_t step) {
  Frame frame;
  link.send({.from = {}, .to = {}, .message = StartStep{.step = step, .attempt = 0}}, 0,
            [&](Frame f) { frame = std::move(f); });
  return frame;
}

}  // namespace

TEST_CASE("over a transport that loses, repeats, reorders and corrupts, each message is delivered once, in order",
          "[link]") {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    INFO("seed " << seed);
    const double harm = 0.02 + 0.05 * double(seed % 5);
    Pair pair({.seed = seed, .drop = harm, .duplicate = harm, .reorder = 2 * harm, .corrupt = harm}, kLossy);
    for (int turn = 0; turn < 100; ++turn) {
      for (const std::uint32_t node : {0u, 1u})
        for (std::uint64_t count = pair.draw.below(4); count > 0; --count) pair.send(node);
      pair.turn();
    }
    for (int turn = 0; turn < 2000 && !pair.all_received(); ++turn) pair.turn();
    REQUIRE(pair.all_received());
    REQUIRE(pair.right);
    REQUIRE(pair.torn > 0);
    const LinkCounters& counters = pair.links[0].counters();
    REQUIRE((counters.delivered == std::uint64_t(pair.sent[1]) && counters.resent > 0 && counters.refused == 0));
  }
}

TEST_CASE("at rest nothing is resent", "[link]") {
  Pair pair({}, kLossy);
  for (int i = 0; i < 100; ++i) pair.send(0);
  for (int turn = 0; turn < 20; ++turn) pair.turn();  // four times resend_after_us
  REQUIRE(pair.all_received());
  CHECK(pair.links[0].counters().resent == 0);
  CHECK_FALSE(pair.transports[0]->poll([](const Frame&) {}));
}

TEST_CASE("over a reliable transport that reorders, nothing is kept, acknowledged or lost", "[link]") {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Pair pair({.seed = seed, .duplicate = 0.1, .reorder = 0.5}, LinkLimits{});
    for (int turn = 0; turn < 60; ++turn) {  // together more than a lossy link may keep
      for (int i = 0; i < 100 && turn < 50; ++i) pair.send(0);
      pair.turn();
    }
    REQUIRE(pair.all_received());
    REQUIRE(pair.right);
    const LinkCounters& counters = pair.links[1].counters();
    REQUIRE((counters.reordered > 0 && counters.duplicates > 0 && counters.sent == 0));
    REQUIRE(pair.links[0].counters().resent == 0);
  }
}

TEST_CASE("a frame of another incarnation is refused and counted", "[link]") {
  const LinkLimits limits;
  Link receiver(1, 5, 0, 3, limits);
  Link older(0, 2, 1, 5, limits), to_older(0, 3, 1, 4, limits), stranger(9, 3, 1, 5, limits), peer(0, 3, 1, 5, limits);
  int delivered = 0;
  const auto give = [&](Link& from) {
    receiver.receive(received_by_decode(frame_from(from, 1)), 0, [&](const Envelope&) { ++delivered; });
  };
  give(older);
  give(to_older);
  give(stranger);
  CHECK(delivered == 0);
  CHECK(receiver.counters().refused == 3);
  give(peer);
  CHECK(delivered == 1);
  CHECK(receiver.counters().refused == 3);
}

TEST_CASE("an acknowledgement of what was never sent is refused", "[link]") {
  Link link(0, 1, 1, 1, kLossy);
  link.receive({.link = {.from_node = 1, .from_incarnation = 1, .to_incarnation = 1, .acknowledge = 1}, .envelope = {}},
               0, [](const Envelope&) {});
  CHECK(link.counters().refused == 1);
}

TEST_CASE("a frame too far ahead is refused, so that what waits is bounded", "[link]") {
  LinkLimits limits = kLossy;
  limits.reorder_max = 10;
  Link sender(0, 1, 1, 1, limits), receiver(1, 1, 0, 1, limits);
  std::vector<Frame> frames;
  for (std::int64_t step = 0; step < 12; ++step) frames.push_back(frame_from(sender, step));
  std::vector<std::int64_t> steps;
  const auto give = [&](const Frame& frame) {
    receiver.receive(received_by_decode(frame), 0,
                     [&](const Envelope& e) { steps.push_back(std::get<StartStep>(e.message).step); });
  };
  give(frames[10]);  // sequence 11
  CHECK(receiver.counters().refused == 1);
  give(frames[9]);
  CHECK((receiver.counters().refused == 1 && steps.empty()));
  for (const Frame& frame : frames) give(frame);
  CHECK(steps == std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  CHECK(receiver.counters().duplicates == 1);
}

TEST_CASE("a delivered message may be answered at once", "[link]") {
  Link left(0, 1, 1, 1, kLossy), right(1, 1, 0, 1, kLossy);
  Frame answer;
  right.receive(received_by_decode(frame_from(left, 1)), 0, [&](const Envelope&) { answer = frame_from(right, 2); });
  const DecodedFrame decoded = received_by_decode(answer);
  CHECK(decoded.link.acknowledge == 1);
  int sent = 0;
  right.tick(1, [&](const Frame&) { ++sent; });
  CHECK(sent == 0);  // the answer was the acknowledgement
}

TEST_CASE("a message that is lost for good is missed, though none follows it", "[link]") {
  const LinkLimits limits{.heartbeat_us = 1000};
  Link sender(0, 1, 1, 1, limits), receiver(1, 1, 0, 1, limits);
  std::vector<std::int64_t> steps;
  const auto give = [&](const Frame& frame, std::int64_t now_us) {
    receiver.receive(received_by_decode(frame), now_us,
                     [&](const Envelope& e) { steps.push_back(std::get<StartStep>(e.message).step); });
  };
  const Frame first = frame_from(sender, 1), lost = frame_from(sender, 2);
  give(first, 100);
  CHECK(receiver.missing_since_us() == -1);
  sender.tick(2000, [&](const Frame& sign_of_life) { give(sign_of_life, 2100); });
  CHECK(receiver.missing_since_us() == 2100);
  CHECK(steps == std::vector<std::int64_t>{1});
  give(frame_from(sender, 3), 3000);  // waits behind the lost one
  CHECK(receiver.missing_since_us() == 2100);
  give(lost, 4000);
  CHECK(receiver.missing_since_us() == -1);
  CHECK(steps == std::vector<std::int64_t>{1, 2, 3});
}
