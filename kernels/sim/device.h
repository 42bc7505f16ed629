// SimDevice: the production ready heap in front of k servers in virtual time. A segment lasts as long as its cost says
// (kernels/cost.h) at the rates given, times the slowness of the moment; it is done when advance() reaches its end.
// With numbers every op is computed; without, only the router writes: a made-up routing that is legal and depends on
// nothing but the segment's key, so that actors have something to dispatch. A device may be without memory too: then
// Place::device is unread memory, and of a routing there are only the counts.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/base/blocks.h"
#include "kernels/cpu/kernels.h"
#include "kernels/device.h"
#include "kernels/ready_heap.h"
#include "kernels/sim/expert_load.h"
#include "kernels/watch.h"

namespace troupe {

// From begin_us until end_us everything takes `factor` times as long.
struct SlowSpan {
  std::int64_t begin_us = 0, end_us = 0;
  double factor = 1;
};

// When a segment's ops are computed: an actor may rely on neither.
enum class ComputeAt : std::uint8_t { start, end };

struct SimDeviceOptions {
  int servers = 1;
  double flops_per_us = 1000, bytes_per_us = 1000;  // of one server
  bool numbers = true, memory = true;               // no memory: no numbers
  ComputeAt compute_at = ComputeAt::start;
  bool stream = false;     // one server, which tells early words as a GPU does: when it takes their segments
  std::uint64_t seed = 0;  // of the made-up routing
  ExpertLoad load = {};    // of the routing of a device without memory
  std::function<double(const Segment&)> stretches = {};  // its cost's time so many times
  std::vector<SlowSpan> slow = {};
  std::int64_t begin_us = 0;
  std::function<std::int64_t(const Segment&)> lasts_us = {};  // instead of its cost
  int together = ReadyHeap::kTogether;                        // segments of a strand at once
  // A server rests so long after a segment: what follows from it, or arrives meanwhile, may still be chosen next.
  std::function<std::int64_t(const Segment&)> rests_us = {};
  std::int64_t wakes_us = 0;  // an idle server chooses so long after something came: what comes with it counts too
  std::function<bool(const SegmentKey&, const Op&)> skips = {};   // true: the op is passed over, a fault of the device
  std::function<void(const SegmentKey&, const Op&)> before = {};  // each op that is computed: memory that fails
  Watch* watch = nullptr;                                         // outlives the device; a server is a thread
  // With numbers, a clock of what the calling thread computes: a segment lasts as long as it took to compute here, and
  // memory is taken as the processor's device takes it. Empty: as its cost says.
  std::function<std::int64_t()> timed_ns = {};
  std::shared_ptr<Blocks> blocks = {};  // told of all memory of this device; null: nobody asks
};

class SimDevice final : public Device {
 public:
  explicit SimDevice(SimDeviceOptions options);

  Memory allocate(std::size_t size, Place place) override;
  void submit(Segment segment) override;
  void take_completions(std::vector<Completion>& out) override;
  int completion_fd() const override { return -1; }
  std::size_t pending() const override { return heap_.size() + heap_.parked() + under_way_; }

  // Ends what is due by now, earliest first, and starts what may start.
  void advance(std::int64_t now_us);
  // When the next segment under way ends; the largest number if there is none.
  std::int64_t next_us() const;
  std::size_t running() const { return running_.size(); }
  // Since begin_us of the options.
  bool hurries() const override { return false; }
  Usage usage(std::int64_t now_us) const override;
  std::uint64_t finished() const { return finished_; }
  std::int64_t computed_ns() const { return computed_ns_; }      // of the computing thread's time; timed devices
  std::size_t scratch_bytes() const { return scratch_.size(); }  // of a computing thread
  // A core is taken from one of the segments under way, by a number from the caller: it ends later.
  void hold_up(std::int64_t us, std::uint64_t which);
  // From now on whatever is computed lasts so many times as long: servers share cores with others. Whether that is new.
  bool set_pace(std::int64_t now_us, double pace);
  std::size_t bytes_peak(Place place) const { return live(place).peak; }  // of what was allocated and not given back

 private:
  struct Live {
    std::size_t bytes = 0, peak = 0;
  };
  struct Running {
    std::vector<Segment> segments;  // one, or those of a strand that run together
    std::int64_t begin_us = 0, end_us = 0;
    std::uint64_t number = 0;
    std::size_t server = 0;
  };
  void start(std::vector<Segment> segments, std::int64_t now_us);
  void start_what_may(std::int64_t now_us, bool awake = false);
  void rest(std::size_t server, std::int64_t until_us);
  void end_first();
  void compute(const std::vector<Segment>& segments);
  std::int64_t timed_us(const std::vector<Segment>& segments);
  Memory take_timed(std::size_t size, Live& counted);
  void make_up(const Router& op, const SegmentKey& key) const;
  std::int64_t duration_us(const Segment& segment, std::int64_t now_us) const;
  bool told_early(const Segment& segment) const { return options_.stream && segment.early; }

  Live& live(Place place) const { return (*live_)[static_cast<std::size_t>(place)]; }
  SimDeviceOptions options_;
  // By place; memory may outlive the device.
  std::shared_ptr<std::array<Live, 2>> live_ = std::make_shared<std::array<Live, 2>>();
  ReadyHeap heap_;
  std::vector<Running> running_;  // at most one a server
  std::size_t under_way_ = 0;     // segments of them
  std::vector<Timeline> servers_;
  struct Resting {
    std::int64_t until_us = 0;
    std::size_t server = 0;
  };
  std::vector<Resting> resting_;  // the first to be idle again first
  std::vector<std::size_t> idle_servers_;
  std::vector<Completion> done_;
  cpu::Scratch scratch_;
  std::uint64_t started_ = 0, finished_ = 0;
  double pace_ = 1;
  std::int64_t computed_ns_ = 0, left_ns_ = 0;  // less than a microsecond, of what lasted
};

// A routing as kernels/op.h wants it (indices, weights, the plan), drawn from `key`. Scores are all one half.
void make_up_routing(const Router& op, std::uint64_t key);

}  // namespace troupe
