#include "launcher/pairs/meter.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <thread>
#include <utility>

#include "kernels/base/error.h"
#include "launcher/loop.h"

namespace troupe {

namespace {

struct Head {
  std::uint32_t match = 0, word = 0;
  std::uint64_t value = 0;
};

constexpr int kWarmTrips = 50, kMessagesLeast = 2 * PairMeter::kInFlight, kSleepMs = 20;
constexpr std::int64_t kLookUs = 50'000;
constexpr std::uint64_t kMessageLeast = 64 << 10;

double at_share(const std::vector<double>& sorted, double share) {
  return sorted[std::min(sorted.size() - 1, static_cast<std::size_t>(share * static_cast<double>(sorted.size())))];
}

}  // namespace

PairMeter::PairMeter(Transport& transport, PayloadPool& pool, PairMeterOptions options, std::function<void()> look,
                     int watched)
    : transport_(transport), pool_(pool), options_(options), look_(std::move(look)), watched_(watched) {}

void PairMeter::say(Word word, std::uint64_t value, const Payload& payload) {
  const Head head{options_.match, static_cast<std::uint32_t>(word), value};
  Frame frame;
  frame.header.resize(sizeof head);
  std::memcpy(frame.header.data(), &head, sizeof head);
  if (payload) frame.payloads.push_back(payload);
  transport_.send(options_.peer, std::move(frame));
}

void PairMeter::hear(const Frame& frame) {
  Head head;
  if (frame.header.size() != sizeof head) return;
  std::memcpy(&head, frame.header.data(), sizeof head);
  if (head.match != options_.match) return;
  heard_us_ = monotonic_us();
  switch (static_cast<Word>(head.word)) {
    case Word::ping:
      return say(Word::pong, head.value);
    case Word::pong:
      ponged_ = head.value;
      return;
    case Word::data:
      if (head.value == 0) first_data_us_ = heard_us_;
      return say(Word::ack, static_cast<std::uint64_t>(heard_us_ - first_data_us_));
    case Word::ack:
      return on_ack(head.value);
    case Word::flood:
      if (head.value == 0 || head.value > options_.message_max) return;
      if (message_.size != head.value) message_ = pool_.take(head.value);
      answers_ = true;
      return begin_flood();
    case Word::flooded:
      theirs_ = static_cast<double>(head.value);
      return;
    case Word::over:
      over_ = true;
      return;
  }
}

// ---- Bytes a second -------------------------------------------------------------------------------------------------

void PairMeter::begin_flood() {
  sent_ = acks_ = 0;
  began_us_ = monotonic_us();
  for (in_flight_ = 0; in_flight_ < kInFlight; ++in_flight_)
    say(Word::data, static_cast<std::uint64_t>(sent_++), message_);
}

// The rate is that of what came after the first, so that the way's length doesn't count; nor does it matter when
// acknowledgements come, which wait behind the other end's own flood.
void PairMeter::on_ack(std::uint64_t after_us) {
  if (!flooding()) return;
  ++acks_;
  if (heard_us_ - began_us_ < options_.flood_us || sent_ < kMessagesLeast)
    return say(Word::data, static_cast<std::uint64_t>(sent_++), message_);
  if (--in_flight_ > 0) return;
  rate_ = static_cast<double>(message_.size) * (acks_ - 1) * 1e6 /
          static_cast<double>(std::max<std::uint64_t>(1, after_us));
  if (std::exchange(answers_, false)) say(Word::flooded, static_cast<std::uint64_t>(rate_));
}

// Twice as large until one takes a while: large enough to fill the way, and not so large that a slow one takes forever.
void PairMeter::choose_message() {
  std::uint64_t size = kMessageLeast;
  for (;; size *= 2) {
    message_ = pool_.take(size);
    std::memset(message_.data.get(), 1, message_.size);
    in_flight_ = 1;
    sent_ = kMessagesLeast;
    acks_ = 0;
    began_us_ = monotonic_us() - options_.flood_us;  // no other follows it
    const std::int64_t from_us = monotonic_us();
    say(Word::data, 0, message_);
    wait([&] { return !flooding(); });
    if (monotonic_us() - from_us > kMessageUs || 2 * size > options_.message_max) return;
  }
}

// ---- Latency --------------------------------------------------------------------------------------------------------

void PairMeter::time_round_trips(PairFigures& figures) {
  std::vector<double> halves;
  std::int64_t until_us = 0;
  for (int i = 1; i <= kWarmTrips + options_.round_trips; ++i) {
    const std::int64_t from_ns = monotonic_ns();
    say(Word::ping, static_cast<std::uint64_t>(i));
    wait([&] { return ponged_ == static_cast<std::uint64_t>(i); });
    if (i == kWarmTrips) until_us = monotonic_us() + options_.flood_us;
    if (i <= kWarmTrips) continue;
    halves.push_back(static_cast<double>(monotonic_ns() - from_ns) / 2e3);
    if (monotonic_us() > until_us) break;
  }
  std::sort(halves.begin(), halves.end());
  figures.half_trip_us = at_share(halves, 0.5);
  figures.half_trip_us_99 = at_share(halves, 0.99);
}

// ---- Both ends ------------------------------------------------------------------------------------------------------

PairFigures PairMeter::lead() {
  PairFigures figures;
  heard_us_ = monotonic_us();
  time_round_trips(figures);
  choose_message();
  figures.message_bytes = message_.size;
  const auto ask = [&] {
    theirs_ = -1;
    say(Word::flood, message_.size);
  };
  begin_flood();
  wait([&] { return !flooding(); });
  figures.out = rate_;
  ask();
  wait([&] { return theirs_ >= 0; });
  figures.in = theirs_;
  ask();
  begin_flood();
  wait([&] { return !flooding() && theirs_ >= 0; });
  figures.both = rate_ + theirs_;
  say(Word::over, 0);
  return figures;
}

void PairMeter::follow() {
  heard_us_ = monotonic_us();
  wait([&] { return over_; });
}

void PairMeter::wait(const std::function<bool()>& done) {
  std::int64_t idle_us = monotonic_us();
  while (!done()) {
    const bool happened = transport_.poll([this](const Frame& frame) { hear(frame); });
    const std::int64_t now_us = monotonic_us();
    if (now_us - looked_us_ > kLookUs) {
      looked_us_ = now_us;
      look_();
    }
    if (happened) {
      idle_us = now_us;
      continue;
    }
    if (now_us - heard_us_ > options_.silence_us)
      throw Error("nothing was heard for {} ms", options_.silence_us / 1000);
    if (now_us - idle_us < options_.spin_us)
      std::this_thread::yield();
    else if (transport_.arm())
      sleep();
  }
}

void PairMeter::sleep() {
  std::array<pollfd, 2> fds{pollfd{transport_.wake_fd(), POLLIN, 0}, pollfd{watched_, POLLIN, 0}};
  ::poll(fds.data(), fds.size(), kSleepMs);
  if (fds[1].revents != 0) looked_us_ = 0;  // it wants to be looked at
}

}  // namespace troupe
