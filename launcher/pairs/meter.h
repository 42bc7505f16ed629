// PairMeter: one end of the way between two hosts, which is measured by frames over a run's own transport. One end leads, the
// other follows; both then know that it is over. It looks for frames, and sleeps, as a run's loop does.
//
// A frame's header is (match, word, value), two u32 and a u64. Frames of another match are dropped: they are late.
//   ping i -> pong i                       half of the round trip is the latency
//   data i, with a payload -> ack u        kInFlight at once, for a while: bytes a second by the clock of who receives, u
//                                          microseconds after the first
//   flood s -> the other end sends data of s bytes for that while, then flooded r: bytes a second that it reached
//   over
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

#include "messages/transport.h"

namespace troupe {

struct PairFigures {
  double half_trip_us = 0, half_trip_us_99 = 0;  // of a small message: median, 99th percentile
  double out = 0, in = 0;                        // bytes a second from who leads, and to him, one at a time
  double both = 0;                               // the sum, both at once
  std::uint64_t message_bytes = 0;               // of a large one
};

struct PairMeterOptions {
  std::uint32_t peer = 0, match = 0;
  std::int64_t flood_us = 400'000;      // so long each way
  std::int64_t silence_us = 5'000'000;  // of the other end, until it is given up
  std::uint64_t message_max = 4 << 20;  // bytes; less where that takes longer than kMessageUs
  int round_trips = 2000;               // at the most, and for no longer than flood_us
  std::int64_t spin_us = 100;           // it looks for frames so long before it sleeps
};

class PairMeter {
 public:
  static constexpr int kInFlight = 8;
  static constexpr std::int64_t kMessageUs = 10'000;

  // look: called every 50 ms or so; what it throws ends the measuring. watched: a descriptor
  // that it wants to be woken for, or -1. REQUIRES: the transport is connected to the peer, and used by nobody else.
  PairMeter(Transport& transport, PayloadPool& pool, PairMeterOptions options, std::function<void()> look,
            int watched = -1);
  // Throws Error: the other end is silent.
  PairFigures lead();
  void follow();

 private:
  enum class Word : std::uint32_t { ping = 1, pong, data, ack, flood, flooded, over };
  void say(Word word, std::uint64_t value, const Payload& payload = {});
  void hear(const Frame& frame);
  void on_ack(std::uint64_t after_us);
  void wait(const std::function<bool()>& done);
  void sleep();
  void time_round_trips(PairFigures& figures);
  void choose_message();
  void begin_flood();
  bool flooding() const { return in_flight_ > 0; }

  Transport& transport_;
  PayloadPool& pool_;
  const PairMeterOptions options_;
  std::function<void()> look_;
  const int watched_;
  std::int64_t heard_us_ = 0, looked_us_ = 0;
  std::int64_t first_data_us_ = 0;       // of the flood that this end receives
  bool over_ = false, answers_ = false;  // answers: the flood under way was asked for
  std::uint64_t ponged_ = 0;
  Payload message_;
  // Of the flood that this end sends.
  int in_flight_ = 0, sent_ = 0, acks_ = 0;
  std::int64_t began_us_ = 0;
  double rate_ = 0;     // that it reached, bytes a second
  double theirs_ = -1;  // that the other end told of its own; -1: not yet
};

}  // namespace troupe
