#include "kernels/cuda/device.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <utility>

#include "kernels/cost.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/ranges.h"
#include "kernels/shapes.h"
#include "kernels/strand.h"

namespace troupe {

using cuda::must;

namespace {

// Flights whose copies are under way, beside those on the stream.
constexpr std::size_t kComing = 2, kGoing = 4;

std::int64_t now_us() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::microseconds>(now).count();
}

cudaEvent_t make_event(unsigned flags) {
  cudaEvent_t event = nullptr;
  must(cudaEventCreateWithFlags(&event, flags), "making an event");
  return event;
}

// Not for long: a kernel that is loaded first may have to wait for the GPU.
void wait_until_queued(void* queued) {
  constexpr std::int64_t kLongestUs = 2000;
  const auto& all = *static_cast<const std::atomic<bool>*>(queued);
  for (const std::int64_t begin_us = now_us();
       !all.load(std::memory_order_acquire) && now_us() - begin_us < kLongestUs;)
    std::this_thread::yield();
}

// Of an op's time among others: its operations, and for each byte what a GPU computes while it moves one.
double weight_of(const Op& op) {
  constexpr double kOperationsOfAByte = 256;
  const Cost one = cost(op);
  return one.flops + kOperationsOfAByte * one.bytes;
}

}  // namespace

CudaDevice::CudaDevice(const CudaOptions& options) : options_(options), timeline_(now_us()) {
  CHECK(options.segments_ahead > 0, "a GPU that is {} segments ahead", options.segments_ahead);
  must(cudaSetDevice(options.index), "choosing the GPU");
  must(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
  begin_ = make_event(cudaEventDefault);
  end_ = make_event(cudaEventDefault);
  arena_ = std::make_unique<cuda::Arena>(stream_, options.warpgroups);
  if (options.library) library_ = cuda::open_library();
  if (options.staging > 0) stager_ = std::make_unique<cuda::Stager>(options.staging, options.staged_min, pinned_);
  driver_ = std::thread([this] { drive(); });
}

CudaDevice::~CudaDevice() {
  {
    std::lock_guard lock(ready_mutex_);
    closing_ = true;
  }
  ready_.notify_all();
  driver_.join();
  stager_.reset();
  arena_.reset();
  for (const cudaEvent_t event : events_) cudaEventDestroy(event);
  cudaEventDestroy(begin_);
  cudaEventDestroy(end_);
  cudaStreamDestroy(stream_);
}

// Zeroed, as CpuDevice's.
Memory CudaDevice::allocate(std::size_t size, Place place) {
  void* data = nullptr;
  must(cudaSetDevice(options_.index), "choosing the GPU");
  const cudaError_t result = place == Place::device ? cudaMalloc(&data, std::max<std::size_t>(size, 1))
                                                    : cudaHostAlloc(&data, std::max<std::size_t>(size, 1), 0);
  if (result != cudaSuccess)
    throw Error("can't allocate {} bytes of {} memory: {}; lower the memory that the plan shows", size,
                place == Place::device ? "the GPU's" : "pinned", cudaGetErrorString(result));
  if (place == Place::shared) {
    std::memset(data, 0, size);
    pinned_->add(data, size);
    const auto give_back = [pinned = pinned_](void* memory) {
      pinned->remove(memory);
      cudaFreeHost(memory);
    };
    return {std::shared_ptr<void>(data, give_back), data, size};
  }
  must(cudaMemset(data, 0, size), "clearing memory");
  must(cudaStreamSynchronize(nullptr), "clearing memory");  // for no other stream: one may wait for another process
  return {std::shared_ptr<void>(data, [](void* memory) { cudaFree(memory); }), data, size};
}

void CudaDevice::submit(Segment segment) {
  completions_.expect();
  {
    std::lock_guard lock(ready_mutex_);
    CHECK(!closing_, "a segment was submitted to a device that is closing");
    heap_.push(std::move(segment));
    waiting_.store(heap_.size(), std::memory_order_release);
  }
  ready_.notify_one();
}

// An error of the GPU leaves nothing to go on with: the process ends with its sentence.
void CudaDevice::drive() {
  try {
    must(cudaSetDevice(options_.index), "choosing the GPU");
    for (;;) {
      if (turn() || !idle()) continue;
      std::unique_lock lock(ready_mutex_);
      if (heap_.empty() && closing_) return;
      if (heap_.empty()) ready_.wait(lock);
    }
  } catch (const std::exception& problem) {
    CHECK(false, "{}", problem.what());
  }
}

bool CudaDevice::idle() const { return coming_.empty() && flights_.empty() && going_.empty(); }

bool CudaDevice::room() const { return flights_.size() < static_cast<std::size_t>(options_.segments_ahead); }

bool CudaDevice::turn() {
  if (room() && !coming_.empty() && cuda::Stager::have_come(coming_.front().copies)) {
    Flight flight = std::move(coming_.front());
    coming_.pop_front();
    launch(std::move(flight));
    return true;
  }
  if (room() && coming_.size() < kComing && going_.size() < kGoing && waiting_.load(std::memory_order_acquire) > 0 &&
      take_next())
    return true;
  if (!flights_.empty() && over(flights_.front())) {
    land();
    return true;
  }
  if (!going_.empty() && cuda::Stager::have_gone(going_.front().copies)) {
    tell(going_.front());
    going_.pop_front();
    return true;
  }
  return false;
}

bool CudaDevice::take_next() {
  Flight flight;
  {
    std::lock_guard lock(ready_mutex_);
    if (heap_.empty()) return false;
    heap_.pop(flight.segments, ReadyHeap::kBeside);
    waiting_.store(heap_.size(), std::memory_order_release);
  }
  if (stager_) {
    order(flight);
    flight.copies = stager_->begin(flight.segments, ops_);
  }
  if (flight.copies.in != nullptr)
    coming_.push_back(std::move(flight));
  else
    launch(std::move(flight));
  return true;
}

void CudaDevice::order(const Flight& flight) {
  ops_.clear();
  flight.segments.front().strand == 0 ? ops_in_turn(flight.segments, ops_) : ops_by_sum(flight.segments, ops_);
}

void CudaDevice::launch(Flight flight) {
  flight.begin_us = now_us();
  if (flights_.empty()) {
    std::lock_guard lock(seen_mutex_);
    timeline_.enter(use_of(flight.segments.front().key), flight.begin_us);
    if (options_.watch != nullptr) options_.watch->begins(0, flight.segments, flight.begin_us);
  }
  const cuda::Range range(flight.segments.front().key, flight.segments.size());
  order(flight);
  for (std::size_t op = 0; op < ops_.size();)
    op += options_.profiled ? run_timed(op, flight.segments.front().key.segment_class) : run_next(op);
  if (events_.empty()) events_.push_back(make_event(cudaEventDisableTiming));
  flight.over = events_.back();
  events_.pop_back();
  must(cudaEventRecord(flight.over, stream_), "recording an event");
  if (!flight.copies.all.empty()) stager_->send(flight.copies, flight.over);
  if (!stager_) tell_early(flight);
  flights_.push_back(std::move(flight));
}

std::size_t CudaDevice::run_next(std::size_t first) {
  const cuda::Range range(*ops_[first]);
  arena_->reset();
  if (const auto* product = std::get_if<Product>(ops_[first]); library_ && product != nullptr) {
    check(*ops_[first]);
    if (library_->multiply(*product, *arena_)) return 1;
  }
  return cuda::run_next(ops_, first, *arena_);
}

// What ran together shares its time by what it costs. The GPU begins when all has been put on its queue: how long the
// host takes for that is no time of the op's.
std::size_t CudaDevice::run_timed(std::size_t first, SegmentClass phase) {
  std::atomic<bool> queued = false;
  must(cudaLaunchHostFunc(stream_, wait_until_queued, &queued), "holding the GPU back");
  must(cudaEventRecord(begin_, stream_), "recording an event");
  const std::size_t count = run_next(first);
  must(cudaEventRecord(end_, stream_), "recording an event");
  queued.store(true, std::memory_order_release);
  must(cudaEventSynchronize(end_), "an op's kernels");
  float ms = 0;
  must(cudaEventElapsedTime(&ms, begin_, end_), "an op's time");
  double all = 0;
  for (std::size_t i = 0; i < count; ++i) all += weight_of(*ops_[first + i]);
  std::lock_guard lock(seen_mutex_);
  for (std::size_t i = 0; i < count; ++i) {
    const Op& op = *ops_[first + i];
    const double share = all > 0 ? weight_of(op) / all : 1 / static_cast<double>(count);
    profile_.add(phase, op, static_cast<std::int64_t>(static_cast<double>(ms) * 1e6 * share));
  }
  return count;
}

bool CudaDevice::over(const Flight& flight) const {
  const cudaError_t state = cudaEventQuery(flight.over);
  if (state == cudaErrorNotReady) return false;
  must(state, "a segment's kernels");
  return true;
}

void CudaDevice::land() {
  Flight flight = std::move(flights_.front());
  flights_.pop_front();
  events_.push_back(flight.over);
  const std::int64_t end_us = now_us();
  if (options_.watch != nullptr) options_.watch->ends(0, flight.segments, flight.begin_us, end_us);
  {
    std::lock_guard lock(seen_mutex_);
    timeline_.enter(flights_.empty() ? Use::idle : use_of(flights_.front().segments.front().key), end_us);
    if (!flights_.empty()) flights_.front().begin_us = end_us;
  }
  if (options_.watch != nullptr && !flights_.empty()) options_.watch->begins(0, flights_.front().segments, end_us);
  if (flight.copies.out != nullptr)
    going_.push_back(std::move(flight));
  else
    tell(flight);
}

void CudaDevice::tell(Flight& flight) {
  if (stager_) {
    if (!flight.copies.all.empty()) stager_->end(flight.copies);
    go_on_behind(flight);
  }
  if (!flight.told) completions_.add(flight.segments);
}

// The stream runs segments in the order in which they come to it, and without a stager nothing else moves what they touch:
// those of a strand follow each other there, and so do the segments that this one's word leads to.
void CudaDevice::tell_early(Flight& flight) {
  go_on_behind(flight);
  flight.told = std::all_of(flight.segments.begin(), flight.segments.end(), [](const Segment& s) { return s.early; });
  if (flight.told) completions_.add(flight.segments);
}

void CudaDevice::go_on_behind(const Flight& flight) {
  if (flight.segments.front().strand == 0) return;
  std::lock_guard lock(ready_mutex_);
  heap_.done(flight.segments);
  waiting_.store(heap_.size(), std::memory_order_release);
}

Usage CudaDevice::usage(std::int64_t at_us) const {
  Usage usage;
  usage.ready = waiting_.load(std::memory_order_acquire);
  std::lock_guard lock(seen_mutex_);
  timeline_.add_to(usage, at_us);
  return usage;
}

OpProfile CudaDevice::profile() const {
  std::lock_guard lock(seen_mutex_);
  return profile_;
}

void CudaDevice::clear_profile() {
  std::lock_guard lock(seen_mutex_);
  profile_.clear();
}

}  // namespace troupe
