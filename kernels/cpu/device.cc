#include "kernels/cpu/device.h"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "kernels/base/error.h"

namespace troupe {

namespace {

constexpr std::size_t kLine = 64, kHugePage = std::size_t{1} << 21;
constexpr std::chrono::microseconds kSpin{20};  // about what waking a sleeping thread costs
using Clock = std::chrono::steady_clock;

std::int64_t now_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now().time_since_epoch()).count();
}

}  // namespace

CpuDevice::CpuDevice(int threads, bool profiled, std::size_t recorded_max)
    : event_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)), inline_(threads == 0), profiled_(profiled) {
  CHECK(threads >= 0, "a device of {} threads", threads);
  if (event_ < 0)
    throw Error("can't create an event descriptor: {}; raise the limit of open files", std::strerror(errno));
  for (int i = 0; i < std::max(threads, 1); ++i) workers_.push_back(std::make_unique<Worker>(now_us(), recorded_max));
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
  close(event_);
}

// Every page is touched here, so that no segment pays for a page fault.
Memory CpuDevice::allocate(std::size_t size) {
  const std::size_t unit = size >= 2 * kHugePage ? kHugePage : kLine;
  const std::size_t padded = std::max(unit, (size + unit - 1) / unit * unit);
  void* data = std::aligned_alloc(unit, padded);
  if (data == nullptr)
    throw Error("can't allocate {} bytes of device memory; lower the memory that the plan shows", size);
  if (unit == kHugePage) madvise(data, padded, MADV_HUGEPAGE);
  std::memset(data, 0, padded);
  return {std::shared_ptr<void>(data, [](void* memory) { std::free(memory); }), data, size};
}

void CpuDevice::submit(Segment segment) {
  pending_.fetch_add(1, std::memory_order_acq_rel);
  if (inline_) return run(*workers_[0], segment);
  {
    std::lock_guard lock(ready_mutex_);
    CHECK(!closing_, "a segment was submitted to a device that is closing");
    heap_.push(std::move(segment));
    waiting_.store(heap_.size(), std::memory_order_release);
  }
  ready_.notify_one();
}

void CpuDevice::work(Worker& worker) {
  for (Segment segment; next(segment);) run(worker, segment);
}

bool CpuDevice::next(Segment& segment) {
  const auto limit = Clock::now() + kSpin;
  while (waiting_.load(std::memory_order_acquire) == 0 && Clock::now() < limit) std::this_thread::yield();
  std::unique_lock lock(ready_mutex_);
  ready_.wait(lock, [this] { return closing_ || !heap_.empty(); });
  if (heap_.empty()) return false;
  segment = heap_.pop();
  waiting_.store(heap_.size(), std::memory_order_release);
  return true;
}

void CpuDevice::run(Worker& worker, const Segment& segment) {
  const bool recorded = worker.recording.wanted();
  const std::int64_t begin_us = recorded ? now_us() : 0;
  worker.enter(use_of(segment.key));
  if (profiled_)
    run_timed(worker, segment);
  else
    for (const Op& op : segment.ops) cpu::run(op, worker.scratch);
  worker.enter(Use::idle);
  if (recorded) worker.recording.add(segment.key, begin_us, now_us());
  complete(segment.done);
}

void CpuDevice::run_timed(Worker& worker, const Segment& segment) {
  for (const Op& op : segment.ops) {
    const auto begin = Clock::now();
    cpu::run(op, worker.scratch);
    const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - begin).count();
    std::lock_guard lock(worker.profile_mutex);
    worker.profile.add(segment.key.segment_class, op, ns);
  }
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

std::vector<std::vector<RecordedSegment>> CpuDevice::recorded() const {
  CHECK(pending() == 0, "{} segments are still to be recorded", pending());
  std::vector<std::vector<RecordedSegment>> all;
  for (const auto& worker : workers_) all.push_back(worker->recording.segments());
  return all;
}

// The event is written only for the first of a batch: whoever reads it takes them all.
void CpuDevice::complete(Completion done) {
  std::lock_guard lock(done_mutex_);
  const bool first = done_.empty();
  done_.push_back(done);
  pending_.fetch_sub(1, std::memory_order_acq_rel);
  if (!first) return;
  const std::uint64_t one = 1;
  CHECK(write(event_, &one, sizeof one) == sizeof one, "the completion event can't be written: {}",
        std::strerror(errno));
}

void CpuDevice::take_completions(std::vector<Completion>& out) {
  std::lock_guard lock(done_mutex_);
  if (done_.empty()) return;
  out.insert(out.end(), done_.begin(), done_.end());
  done_.clear();
  std::uint64_t count = 0;
  CHECK(read(event_, &count, sizeof count) == sizeof count, "the completion event can't be read: {}",
        std::strerror(errno));
}

void CpuDevice::Worker::enter(Use use) {
  std::lock_guard lock(timeline_mutex);
  timeline.enter(use, now_us());
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
