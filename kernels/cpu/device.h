// CpuDevice: compute threads that take the most urgent ready segment from one heap, run it alone and single-threaded,
// and tell once. A stolen core delays one segment; nobody waits for anybody. Only of evaluation and generation, where one
// segment may be all there is to do, large ops are offered in parts to threads that idle.
// With no threads submit() runs the segment at once on the caller's thread: for tests and small tools.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/completions.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/offer.h"
#include "kernels/measured_device.h"
#include "kernels/ready_heap.h"
#include "kernels/watch.h"

namespace troupe {

class CpuDevice final : public MeasuredDevice {
 public:
  // watch: may be null; outlives the device. helps: idle threads spin for parts of others' ops; only where each thread has
  // a core.
  explicit CpuDevice(int threads, bool profiled = false, Watch* watch = nullptr, bool helps = true);
  ~CpuDevice() override;  // runs what was submitted, then joins
  CpuDevice(const CpuDevice&) = delete;
  CpuDevice& operator=(const CpuDevice&) = delete;

  Memory allocate(std::size_t size, Place place) override;  // both are memory of the process
  void submit(Segment segment) override;
  void take_completions(std::vector<Completion>& out) override { completions_.take(out); }
  int completion_fd() const override { return completions_.descriptor(); }
  std::size_t pending() const override { return completions_.pending(); }

  bool hurries() const override {
    return sharing_.load(std::memory_order_relaxed) > 0 && spinning_.load(std::memory_order_relaxed) > 0;
  }
  Usage usage(std::int64_t now_us) const override;  // by the monotonic clock
  OpProfile profile() const override;
  void clear_profile() override;

 private:
  struct Worker {
    Worker(std::size_t number_, std::int64_t begin_us) : number(number_), timeline(begin_us) {}
    std::int64_t enter(Use use);  // the time at which it did
    std::size_t number;
    std::thread thread;
    mutable std::mutex timeline_mutex;
    Timeline timeline;
    cpu::Scratch scratch;
    std::vector<Segment> segments;  // under way, one after the other or together
    std::vector<const Op*> ops;     // of all of them
    cpu::Offer offer;
    bool lingers = false;  // spins longer before it sleeps
    mutable std::mutex profile_mutex;
    OpProfile profile;
  };
  void work(Worker& worker);
  bool next(Worker& worker);  // false: the device is closing and nothing is ready
  void run(Worker& worker);
  void finish(Worker& worker);  // what it ran is done: the next of the strand is ready
  void run_op(Worker& worker, const Op& op, bool share);
  void run_timed(Worker& worker, const Op& op, bool share);
  bool wait_and_help(Worker& worker);  // false: some time passed without anything to do

  std::mutex ready_mutex_;
  std::condition_variable ready_;
  ReadyHeap heap_;
  bool closing_ = false;
  std::atomic<std::size_t> waiting_ = 0;  // the heap's size, for threads that spin before they sleep
  std::atomic<int> spinning_ = 0;         // threads that would help
  std::atomic<int> sharing_ = 0;          // segments under way whose ops may be offered

  Completions completions_;
  std::vector<std::unique_ptr<Worker>> workers_;
  Watch* watch_;
  bool inline_, profiled_, helps_;
};

}  // namespace troupe
