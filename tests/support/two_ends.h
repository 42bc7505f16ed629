// Two ends of a transport that tell each other every kind of message, for whatever transport it is.
#pragma once

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "messages/link.h"
#include "messages/ucx.h"
#include "tests/support/random_message.h"

namespace troupe {

using Clock = std::chrono::steady_clock;
constexpr auto kPatience = std::chrono::seconds(30);

// Where the payloads of a process lie.
struct Pools {
  PayloadPool shared;
  PayloadPool device{PayloadPool::process_memory, true};
};

inline const std::vector<UcxOptions> kWays = {{.tls = "shm", .interface = ""},
                                              {.tls = "tcp", .interface = "lo"},
                                              {.tls = "any", .interface = ""},
                                              {.tls = "any", .interface = "lo"}};  // and as if it were another machine

// An address begins with the machine.
inline std::string heard_from(const UcxOptions& options, std::string address) {
  if (options.interface == "lo") address.front() = static_cast<char>(address.front() ^ 1);
  return address;
}

inline bool readable(int fd, int wait_ms) {
  pollfd wanted{.fd = fd, .events = POLLIN, .revents = 0};
  return ::poll(&wanted, 1, wait_ms) == 1;
}

// One end of a connection: transport and link, in the order of use.
struct End {
  End(std::uint32_t node, Transport& t) : transport(t), link(node, 1, 1 - node, 1, LinkLimits{}), peer(1 - node) {}

  void send(const Envelope& envelope) {
    link.send(envelope, 0, [this](Frame frame) { transport.send(peer, std::move(frame)); });
  }

  // Polls, and sleeps on the wake descriptor when there is nothing to do. False: patience is at an end.
  bool wait_until(const std::function<bool()>& done) {
    const auto deadline = Clock::now() + kPatience;
    while (!done()) {
      if (Clock::now() > deadline || !problem.empty()) return false;
      const bool happened = transport.poll([this](const Frame& frame) { take(frame); });
      if (!happened && transport.arm()) readable(transport.wake_fd(), 100);
    }
    return true;
  }

  void take(const Frame& frame) {
    auto decoded = decode(frame, problem);
    if (decoded) link.receive(std::move(*decoded), 0, [this](Envelope e) { received.push_back(std::move(e)); });
  }

  Transport& transport;
  Link link;
  std::uint32_t peer;
  std::vector<Envelope> received;
  std::string problem;
};

// What node `from` says: every kind with payloads of up to 1 MiB; then sizes about every threshold of UCX, up to 8 MiB;
// then a header too long for an active message.
inline std::vector<Envelope> story_of(std::uint32_t from, double device_share) {
  MessageDraw draw(from + 1, std::size_t{1} << 20, device_share);
  std::vector<Envelope> story;
  for (std::size_t round = 0; round < 3; ++round)
    for (std::size_t kind = 0; kind < kWireKinds; ++kind) story.push_back(draw.envelope(kind));
  for (const std::size_t size :
       {0, 1, 63, 64, 93, 94, 4096, 8185, 8192, 8256, 8257, 19500, 20000, 65536, 1 << 20, 8 << 20}) {
    ActivationGradients one{.key = {}, .rows = 1, .gradient = draw.payload(size)};
    ExpertBatch several{.key = {},
                        .rows = 2,
                        .last_chunk = true,
                        .counts = {1, 1},
                        .hidden = draw.payload(size),
                        .gates = draw.payload(12),
                        .inputs = draw.payload(size)};
    one.gradient.on_device = several.hidden.on_device = several.inputs.on_device = device_share > 0;
    story.push_back({.from = {}, .to = {}, .message = one});
    story.push_back({.from = {}, .to = {}, .message = several});
  }
  for (const std::size_t size : {3000, 8000, 8500, 70'000, 900'000})
    story.push_back({.from = {}, .to = {}, .message = SnapshotBegin{.version = 1, .state = std::string(size, 'x')}});
  ExpertBatch long_header{.key = {},
                          .rows = 3,
                          .last_chunk = false,
                          .counts = RecycledVector<std::int32_t>(30'000, 7),
                          .hidden = draw.payload(100'000),
                          .gates = {},
                          .inputs = draw.payload(5)};
  long_header.inputs.on_device = device_share > 0;
  story.push_back({.from = {}, .to = {}, .message = long_header});
  return story;
}

// Says its story, in bursts, and listens to the other's.
inline std::string tell_and_listen(std::uint32_t node, Transport& transport, double device_share = 0) {
  End end(node, transport);
  const auto mine = story_of(node, device_share), theirs = story_of(1 - node, device_share);
  for (std::size_t i = 0; i < mine.size(); ++i) {
    end.send(mine[i]);
    if (i % 16 == 15) transport.poll([&](const Frame& frame) { end.take(frame); });
  }
  if (!end.wait_until([&] { return end.received.size() >= theirs.size(); }))
    return fmt::format("{} of {} messages came; {}", end.received.size(), theirs.size(), end.problem);
  for (std::size_t i = 0; i < theirs.size(); ++i)
    if (!same_envelope(end.received[i], theirs[i]))
      return fmt::format("message {}, a {}, came as another", i, kind_of(theirs[i].message));
  return {};
}

inline Frame frame_of(const Message& message, std::uint64_t sequence) {
  return encode({.from = {}, .to = {}, .message = message}, {.sequence = sequence}, false);
}

inline Frame numbered(std::uint64_t sequence, const Payload& payload) {
  return frame_of(SharedTensor{.version = 1, .attempt = 0, .values = payload}, sequence);
}

}  // namespace troupe
