#include "kernels/sim/device.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>

#include "kernels/base/random.h"
#include "kernels/cost.h"
#include "kernels/cpu/memory.h"
#include "kernels/sim/unread_memory.h"
#include "kernels/strand.h"

namespace troupe {

namespace {

constexpr std::size_t kLine = 64, kSparse = 16 * 4096;

std::uint64_t key_of(std::uint64_t seed, const SegmentKey& key) {
  const std::uint64_t place = random_word(seed, static_cast<std::uint64_t>(key.step), 0);
  return random_word(place, static_cast<std::uint64_t>(key.microbatch), static_cast<std::uint64_t>(key.layer));
}

// `count` different experts of a token, in drawn order: a few first places of a permutation.
void draw_experts(std::int32_t* chosen, std::int64_t count, std::uint64_t experts, std::uint64_t key) {
  for (std::int64_t k = 0; k < count; ++k)
    chosen[k] = static_cast<std::int32_t>(random_permute(static_cast<std::uint64_t>(k), experts, key));
}

}  // namespace

void make_up_routing(const Router& op, std::uint64_t key) {
  const std::int64_t rows = op.x.rows, experts = op.scores.cols, slots = op.indices.cols;
  std::vector<std::int32_t> next(static_cast<std::size_t>(experts), 0);
  std::int32_t* counts = op.counts.row<std::int32_t>(0);
  std::fill_n(counts, experts, 0);
  for (std::int64_t t = 0; t < rows; ++t) {
    auto* chosen = op.indices.row<std::int32_t>(t);
    std::fill_n(op.scores.row<float>(t), experts, 0.5F);
    std::fill_n(op.weights.row<float>(t), slots, op.scaling / static_cast<float>(slots));
    if (!op.reuse_indices)
      draw_experts(chosen, slots, static_cast<std::uint64_t>(experts), random_word(key, static_cast<std::uint64_t>(t)));
    for (std::int64_t k = 0; k < slots; ++k) ++counts[chosen[k]];
  }
  std::exclusive_scan(counts, counts + experts, next.begin(), 0);
  for (std::int64_t t = 0; t < rows; ++t) {
    for (std::int64_t k = 0; k < slots; ++k) {
      const std::int32_t place = next[static_cast<std::size_t>(op.indices.row<std::int32_t>(t)[k])]++;
      op.position.row<std::int32_t>(t)[k] = place;
      *op.sorted_token.row<std::int32_t>(place) = static_cast<std::int32_t>(t);
      *op.sorted_weight.row<float>(place) = op.weights.row<float>(t)[k];
    }
  }
}

SimDevice::SimDevice(SimDeviceOptions options) : options_(std::move(options)), heap_(options_.together) {
  CHECK(options_.servers > 0 && options_.flops_per_us > 0 && options_.bytes_per_us > 0, "a device that can do nothing");
  CHECK(!options_.stream || options_.servers == 1, "a stream of {} servers", options_.servers);
  CHECK(!options_.timed_ns || (options_.numbers && options_.memory), "nothing to be timed without numbers");
  servers_.assign(static_cast<std::size_t>(options_.servers), Timeline(options_.begin_us));
  for (std::size_t server = servers_.size(); server-- > 0;) idle_servers_.push_back(server);
}

Memory SimDevice::allocate(std::size_t size, Place place) {
  Live& counted = live(place);
  counted.bytes += size;
  counted.peak = std::max(counted.peak, counted.bytes);
  if (place == Place::device && !options_.memory) {
    const auto forget = [all = live_, &counted, size](void*) { counted.bytes -= size; };
    void* const nothing = unread_memory(size);
    return {std::shared_ptr<void>(nothing, forget), nothing, size};
  }
  if (options_.timed_ns) return take_timed(size, counted);
  const std::size_t padded = std::max(kLine, (size + kLine - 1) / kLine * kLine);
  if (!options_.memory && padded >= kSparse) {
    auto memory = sparse_memory(padded);
    void* const data = memory.get();
    const auto forget = [all = live_, &counted, size, memory](void*) { counted.bytes -= size; };
    return {std::shared_ptr<void>(data, forget), data, size};
  }
  void* data = std::aligned_alloc(kLine, padded);
  CHECK(data != nullptr, "no memory for {} simulated bytes", size);
  std::memset(data, 0, padded);
  const auto give_back = [all = live_, &counted, size](void* memory) {
    counted.bytes -= size;
    std::free(memory);
  };
  return {std::shared_ptr<void>(data, give_back), data, size};
}

Memory SimDevice::take_timed(std::size_t size, Live& counted) {
  const Memory memory = cpu::take_memory(size);
  if (options_.blocks) options_.blocks->add(memory.data, cpu::bytes_taken(size));
  const auto forget = [all = live_, &counted, size, memory, blocks = options_.blocks](void*) {
    counted.bytes -= size;
    if (blocks) blocks->remove(memory.data);
  };
  return {std::shared_ptr<void>(memory.data, forget), memory.data, size};
}

void SimDevice::submit(Segment segment) { heap_.push(std::move(segment)); }

void SimDevice::take_completions(std::vector<Completion>& out) {
  out.insert(out.end(), done_.begin(), done_.end());
  done_.clear();
}

std::int64_t SimDevice::duration_us(const Segment& segment, std::int64_t now_us) const {
  if (options_.lasts_us) return options_.lasts_us(segment);
  const Cost total = cost(segment);
  double us = std::max(total.flops / options_.flops_per_us, total.bytes / options_.bytes_per_us);
  if (options_.stretches) us *= options_.stretches(segment);
  for (const SlowSpan& span : options_.slow)
    if (now_us >= span.begin_us && now_us < span.end_us) us *= span.factor;
  return std::max<std::int64_t>(1, std::llround(us));
}

void SimDevice::compute(const std::vector<Segment>& segments) {
  std::vector<const Op*> ops;
  ops_by_sum(segments, ops);
  const SegmentKey& key = segments.front().key;
  for (const Op* op : ops) {
    if (options_.before) options_.before(key, *op);
    if (options_.skips && options_.skips(key, *op)) continue;
    if (options_.numbers) {
      cpu::run(*op, scratch_);
    } else if (const auto* router = std::get_if<Router>(op)) {
      make_up(*router, key);
    }
  }
}

void SimDevice::make_up(const Router& op, const SegmentKey& key) const {
  if (options_.memory) return make_up_routing(op, key_of(options_.seed, key));
  make_up_counts(op, options_.load, key.layer, key_of(options_.seed, key));
}

std::int64_t SimDevice::timed_us(const std::vector<Segment>& segments) {
  const std::int64_t begin_ns = options_.timed_ns();
  compute(segments);
  const std::int64_t took_ns = options_.timed_ns() - begin_ns;
  computed_ns_ += took_ns;
  left_ns_ += took_ns;
  const std::int64_t us = left_ns_ / 1000;
  left_ns_ %= 1000;
  return us;
}

void SimDevice::hold_up(std::int64_t us, std::uint64_t which) {
  if (!running_.empty()) running_[which % running_.size()].end_us += us;
}

bool SimDevice::set_pace(std::int64_t now_us, double pace) {
  if (pace == pace_) return false;
  const double longer = pace / std::exchange(pace_, pace);
  for (Running& running : running_)
    running.end_us =
        now_us + std::llround(longer * static_cast<double>(std::max<std::int64_t>(0, running.end_us - now_us)));
  return true;
}

void SimDevice::start(std::vector<Segment> segments, std::int64_t now_us) {
  std::int64_t end_us = now_us;
  if (options_.timed_ns) {
    end_us += std::llround(pace_ * static_cast<double>(timed_us(segments)));
  } else {
    if (options_.compute_at == ComputeAt::start) compute(segments);
    for (const Segment& segment : segments) end_us += duration_us(segment, end_us);
  }
  const std::size_t server = idle_servers_.back();
  idle_servers_.pop_back();
  servers_[server].enter(use_of(segments.front().key), now_us);
  under_way_ += segments.size();
  for (const Segment& segment : segments)
    if (told_early(segment)) done_.push_back(segment.done);
  if (options_.watch != nullptr) options_.watch->begins(server, segments, now_us);
  running_.push_back({std::move(segments), now_us, end_us, started_++, server});
}

void SimDevice::start_what_may(std::int64_t now_us, bool awake) {
  if (options_.wakes_us > 0 && !awake) {
    if (heap_.empty()) return;
    for (const std::size_t server : std::exchange(idle_servers_, {})) rest(server, now_us + options_.wakes_us);
    return;
  }
  while (!heap_.empty() && !idle_servers_.empty()) {
    std::vector<Segment> segments;
    heap_.pop(segments);
    start(std::move(segments), now_us);
  }
}

void SimDevice::advance(std::int64_t now_us) {
  for (std::int64_t at_us = next_us(); at_us <= now_us; at_us = next_us()) {
    const bool awake = !resting_.empty() && resting_.front().until_us == at_us;
    if (awake) {
      idle_servers_.push_back(resting_.front().server);
      resting_.erase(resting_.begin());
    } else {
      end_first();
    }
    start_what_may(at_us, awake);
  }
  start_what_may(now_us);
}

// Of the segments under way the first to end.
void SimDevice::end_first() {
  const auto first = std::min_element(running_.begin(), running_.end(), [](const Running& a, const Running& b) {
    return std::pair(a.end_us, a.number) < std::pair(b.end_us, b.number);
  });
  const Running ended = std::move(*first);
  running_.erase(first);
  if (options_.compute_at == ComputeAt::end && !options_.timed_ns) compute(ended.segments);
  if (options_.watch != nullptr) options_.watch->ends(ended.server, ended.segments, ended.begin_us, ended.end_us);
  heap_.done(ended.segments);
  servers_[ended.server].enter(Use::idle, ended.end_us);
  rest(ended.server, ended.end_us + (options_.rests_us ? options_.rests_us(ended.segments.back()) : 0));
  for (const Segment& segment : ended.segments)
    if (!told_early(segment)) done_.push_back(segment.done);
  under_way_ -= ended.segments.size();
  finished_ += ended.segments.size();
}

void SimDevice::rest(std::size_t server, std::int64_t until_us) {
  const auto later =
      std::find_if(resting_.begin(), resting_.end(), [&](const Resting& other) { return other.until_us > until_us; });
  resting_.insert(later, {until_us, server});
}

Usage SimDevice::usage(std::int64_t now_us) const {
  Usage usage;
  usage.ready = heap_.size();
  for (const Timeline& server : servers_) server.add_to(usage, now_us);
  return usage;
}

std::int64_t SimDevice::next_us() const {
  std::int64_t next = std::numeric_limits<std::int64_t>::max();
  if (!resting_.empty()) next = resting_.front().until_us;
  for (const Running& running : running_) next = std::min(next, running.end_us);
  return next;
}

}  // namespace troupe
