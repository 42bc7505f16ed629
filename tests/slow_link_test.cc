// The slow link: what it may never do is carry a frame too soon, out of order, or not at all.
#include <catch2/catch.hpp>

#include <poll.h>

#include <chrono>
#include <cstring>

#include "launcher/slow_link.h"
#include "messages/in_process.h"

using namespace troupe;

namespace {

constexpr std::int64_t kMs = 1'000'000;

Frame frame_of(std::uint8_t name, std::size_t size = 1) {
  return {.header = decltype(Frame::header)(size, std::byte{name}), .payloads = {}};
}

// Two nodes; what node 0 says is slow, and time is what a test says it is.
struct SlowPair {
  explicit SlowPair(SlowLinkOptions options) {
    auto both = make_in_process_transports(2);
    options.now_ns = [this] { return now_ns; };
    slow = make_slow_link(std::move(both[0]), options);
    other = std::move(both[1]);
  }
  // The names of the frames that reach node 1 by that time.
  std::string by_ms(double ms) {
    now_ns = static_cast<std::int64_t>(ms * kMs);
    slow->poll([](const Frame&) {});
    other->poll([this](const Frame& frame) { heard += static_cast<char>(frame.header.at(0)); });
    return heard;
  }
  std::int64_t now_ns = 0;
  std::string heard;
  std::unique_ptr<Transport> slow, other;
};

}  // namespace

TEST_CASE("a frame over a slow link arrives after its delay, and not before", "[transport]") {
  SlowPair pair({.delay_ns = 5 * kMs});
  pair.slow->send(1, frame_of('a'));
  pair.by_ms(2);
  pair.slow->send(1, frame_of('b'));
  CHECK(pair.by_ms(4.999).empty());
  CHECK(pair.by_ms(5) == "a");
  CHECK(pair.by_ms(6.999) == "a");
  CHECK(pair.by_ms(7) == "ab");
}

TEST_CASE("frames share the bandwidth of a slow link and leave in the order in which they were sent", "[transport]") {
  SlowPair pair({.delay_ns = 1 * kMs, .bytes_per_ns = 1e-3});  // 1,000 bytes take a millisecond
  pair.slow->send(1, frame_of('a', 4000));
  pair.slow->send(1, frame_of('b', 10));
  CHECK(pair.by_ms(4.99).empty());
  CHECK(pair.by_ms(5) == "a");
  CHECK(pair.by_ms(5.02) == "ab");
  pair.by_ms(100);
  pair.slow->send(1, frame_of('c', 1000));  // an idle link saves nothing up
  CHECK(pair.by_ms(101.99) == "ab");
  CHECK(pair.by_ms(102) == "abc");
}

TEST_CASE("a slow link holds nothing for a peer that is gone, and says the rest when it ends", "[transport]") {
  SlowPair pair({.delay_ns = 5 * kMs});
  pair.slow->send(1, frame_of('a'));
  pair.slow->forget(1);
  pair.slow->connect(1, "");
  pair.slow->send(1, frame_of('b'));
  pair.slow.reset();
  pair.other->poll([&](const Frame& frame) { pair.heard += static_cast<char>(frame.header.at(0)); });
  CHECK(pair.heard == "b");
}

TEST_CASE("who sleeps on a slow link is woken when a frame is due", "[transport]") {
  auto both = make_in_process_transports(2);
  auto slow = make_slow_link(std::move(both[0]), {.delay_ns = 5 * kMs});
  const auto begin = std::chrono::steady_clock::now();
  slow->send(1, frame_of('a'));
  std::string heard;
  while (heard.empty() && std::chrono::steady_clock::now() - begin < std::chrono::seconds(10)) {
    if (!slow->poll([](const Frame&) {}) && slow->arm()) {
      pollfd wake{.fd = slow->wake_fd(), .events = POLLIN, .revents = 0};
      CHECK(::poll(&wake, 1, 10'000) == 1);
    }
    both[1]->poll([&](const Frame& frame) { heard += static_cast<char>(frame.header.at(0)); });
  }
  CHECK(heard == "a");
  CHECK(std::chrono::steady_clock::now() - begin >= std::chrono::milliseconds(5));
}
