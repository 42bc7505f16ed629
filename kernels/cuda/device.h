// CudaDevice: one GPU. A driver thread takes the most urgent ready segment from the heap and puts its kernels on a
// stream, at most so many segments ahead of the GPU; it tells of a segment when its event has come, of an early one when it
// is on the stream. The stream runs segments one after another: "one compute thread", as the bill counts.
// With staging memory (kernels/cuda/stager.h) large operands in pinned memory come before a segment's kernels and go
// behind them, on streams of their own, while the GPU computes others: a segment waits aside until what it reads has
// come, and is told when what it wrote has gone. So segments may be told in another order than they ran, and none early.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/completions.h"
#include "kernels/cuda/arena.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/open.h"
#include "kernels/cuda/stager.h"
#include "kernels/ready_heap.h"

namespace troupe {

class CudaDevice final : public MeasuredDevice {
 public:
  explicit CudaDevice(const CudaOptions& options);  // throws Error: there is no such GPU
  ~CudaDevice() override;                           // runs what was submitted, then joins
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  Memory allocate(std::size_t size, Place place) override;
  void submit(Segment segment) override;
  void take_completions(std::vector<Completion>& out) override { completions_.take(out); }
  int completion_fd() const override { return completions_.descriptor(); }
  std::size_t pending() const override { return completions_.pending(); }
  bool hurries() const override { return false; }
  Usage usage(std::int64_t now_us) const override;  // by the monotonic clock
  OpProfile profile() const override;
  void clear_profile() override;

 private:
  struct Flight {
    std::vector<Segment> segments;  // together on the stream
    cudaEvent_t over = nullptr;
    std::int64_t begin_us = 0;
    cuda::Copies copies;
    bool told = false;
  };
  void drive();
  bool turn();                       // false: there was nothing to do
  bool idle() const;                 // of the driver: nothing is under way
  bool room() const;                 // for one segment more
  bool take_next();                  // false: nothing is ready
  void order(const Flight& flight);  // its ops into ops_
  void launch(Flight flight);
  std::size_t run_next(std::size_t first);  // of ops_, and what goes with it; how many they are
  std::size_t run_timed(std::size_t first, SegmentClass phase);
  void land();  // the oldest flight's kernels are over
  void tell(Flight& flight);
  void tell_early(Flight& flight);
  void go_on_behind(const Flight& flight);  // the next of its strands may be taken
  bool over(const Flight& flight) const;

  CudaOptions options_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;  // of an op that is timed
  std::unique_ptr<cuda::Arena> arena_;
  std::unique_ptr<cuda::Library> library_;  // or null
  std::shared_ptr<cuda::PinnedMemory> pinned_ = std::make_shared<cuda::PinnedMemory>();
  std::unique_ptr<cuda::Stager> stager_;  // or null: operands stay where they are

  std::mutex ready_mutex_;
  std::condition_variable ready_;
  ReadyHeap heap_;
  bool closing_ = false;
  std::atomic<std::size_t> waiting_ = 0;

  Completions completions_;

  mutable std::mutex seen_mutex_;  // of the two below
  Timeline timeline_;
  OpProfile profile_;

  // The driver's own: whose copies in are under way; on the stream; whose copies out are under way. The oldest first.
  std::deque<Flight> coming_, flights_, going_;
  std::vector<cudaEvent_t> events_;
  std::vector<const Op*> ops_;
  std::thread driver_;
};

}  // namespace troupe
