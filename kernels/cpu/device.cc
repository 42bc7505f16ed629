#include "kernels/cpu/device.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/parts.h"
#include "kernels/strand.h"

namespace troupe {

namespace {

constexpr std::chrono::microseconds kSpin{20};  // about what waking a sleeping thread costs
constexpr std::chrono::microseconds kLinger{100};
constexpr std::int64_t kPartsMax = 4;  // of an offered op: so that a late helper still finds some
using Clock = std::chrono::steady_clock;

std::int64_t now_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now().time_since_epoch()).count();
}

}  // namespace

CpuDevice::CpuDevice(int threads, bool profiled, Watch* watch, bool helps)
    : watch_(watch), inline_(threads == 0), profiled_(profiled), helps_(helps && threads > 1) {
  CHECK(threads >= 0, "a device of {} threads", threads);
  for (int i = 0; i < std::max(threads, 1); ++i)
    workers_.push_back(std::make_unique<Worker>(static_cast<std::size_t>(i), now_us()));
  if (inline_) return;
  for (auto& worker : workers_) worker->thread = std::thread([this, &worker] { work(*worker); });
}

CpuDevice::~CpuDevice() {
  {
    std::lock_guard lock(ready_mutex_);
    closing_ = true;
  }
  ready_.notify_all();
  for (auto& worker : workers_)
    if (worker->thread.joinable()) worker->thread.join();
}

Memory CpuDevice::allocate(std::size_t size, Place) { return cpu::take_memory(size); }

void CpuDevice::submit(Segment segment) {
  completions_.expect();
  if (inline_) {
    Worker& worker = *workers_[0];
    worker.segments.clear();
    worker.segments.push_back(std::move(segment));
    return run(worker);
  }
  {
    std::lock_guard lock(ready_mutex_);
    CHECK(!closing_, "a segment was submitted to a device that is closing");
    heap_.push(std::move(segment));
    waiting_.store(heap_.size(), std::memory_order_release);
  }
  ready_.notify_one();
}

void CpuDevice::work(Worker& worker) {
  while (next(worker)) {
    run(worker);
    finish(worker);
  }
}

bool CpuDevice::next(Worker& worker) {
  for (;;) {
    while (waiting_.load(std::memory_order_acquire) == 0 && wait_and_help(worker)) {
    }
    std::unique_lock lock(ready_mutex_);
    if (heap_.empty() && !closing_) ready_.wait(lock);
    if (!heap_.empty()) {
      heap_.pop(worker.segments);
      waiting_.store(heap_.size(), std::memory_order_release);
      return true;
    }
    if (closing_ && heap_.parked() == 0) return false;
    // Another thread was faster: this one may help it.
  }
}

// Spins for a while, longer after a segment whose ops may be offered, its own or another's: the next is not far.
bool CpuDevice::wait_and_help(Worker& worker) {
  auto limit = Clock::now() + (std::exchange(worker.lingers, false) ? kLinger : kSpin);
  bool helped = false;
  spinning_.fetch_add(1);
  while (waiting_.load(std::memory_order_acquire) == 0 && !helped && Clock::now() < limit) {
    for (auto& other : workers_) {
      if (other.get() == &worker || !other->offer.is_open()) continue;
      worker.enter(Use::evaluate);
      helped |= other->offer.help([&](const Op& part) { cpu::run(part, worker.scratch); });
      worker.enter(Use::idle);
    }
    if (sharing_.load(std::memory_order_relaxed) > 0) {
      limit = Clock::now() + kLinger;
      worker.lingers = true;
    }
    std::this_thread::yield();
  }
  spinning_.fetch_sub(1);
  return helped;
}

void CpuDevice::run(Worker& worker) {
  const Use use = use_of(worker.segments.front().key);
  const bool share = helps_ && use == Use::evaluate;
  const std::int64_t begin_us = worker.enter(use);
  if (watch_ != nullptr) watch_->begins(worker.number, worker.segments, begin_us);
  if (share) sharing_.fetch_add(1);
  worker.ops.clear();
  ops_by_sum(worker.segments, worker.ops);
  for (const Op* op : worker.ops) profiled_ ? run_timed(worker, *op, share) : run_op(worker, *op, share);
  if (share) sharing_.fetch_sub(1);
  worker.lingers = share;
  const std::int64_t end_us = worker.enter(Use::idle);
  if (watch_ != nullptr) watch_->ends(worker.number, worker.segments, begin_us, end_us);
  completions_.add(worker.segments);
}

void CpuDevice::finish(Worker& worker) {
  if (worker.segments.front().strand == 0) return;
  bool more = false;
  {
    std::lock_guard lock(ready_mutex_);
    heap_.done(worker.segments);
    more = heap_.size() > waiting_.exchange(heap_.size(), std::memory_order_acq_rel);
  }
  if (more) ready_.notify_one();
}

void CpuDevice::run_op(Worker& worker, const Op& op, bool share) {
  if (share && spinning_.load(std::memory_order_relaxed) > 0)
    cpu::cut(op, kPartsMax, worker.offer.parts());
  else
    worker.offer.parts().clear();
  if (worker.offer.parts().empty()) return cpu::run(op, worker.scratch);
  worker.offer.carry_out([&](const Op& part) { cpu::run(part, worker.scratch); });
}

void CpuDevice::run_timed(Worker& worker, const Op& op, bool share) {
  const auto begin = Clock::now();
  run_op(worker, op, share);
  const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - begin).count();
  std::lock_guard lock(worker.profile_mutex);
  worker.profile.add(worker.segments.front().key.segment_class, op, ns);
}

OpProfile CpuDevice::profile() const {
  OpProfile all;
  for (const auto& worker : workers_) {
    std::lock_guard lock(worker->profile_mutex);
    all.add(worker->profile);
  }
  return all;
}

void CpuDevice::clear_profile() {
  for (const auto& worker : workers_) {
    std::lock_guard lock(worker->profile_mutex);
    worker->profile.clear();
  }
}

std::int64_t CpuDevice::Worker::enter(Use use) {
  std::lock_guard lock(timeline_mutex);
  const std::int64_t at_us = now_us();
  timeline.enter(use, at_us);
  return at_us;
}

Usage CpuDevice::usage(std::int64_t at_us) const {
  Usage usage;
  usage.ready = waiting_.load(std::memory_order_acquire);
  for (const auto& worker : workers_) {
    std::lock_guard lock(worker->timeline_mutex);
    worker->timeline.add_to(usage, at_us);
  }
  return usage;
}

}  // namespace troupe
