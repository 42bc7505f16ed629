// Streams of the processor's CUDA runtime (tests/simt) behave as CUDA says: so what is tested on them is.
#include <cuda_runtime.h>

#include <chrono>
#include <future>
#include <thread>
#include <vector>

#include "tests/support/catch.h"

namespace {

class Stream {
 public:
  Stream() { CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking) == cudaSuccess); }
  ~Stream() { cudaStreamDestroy(stream_); }
  operator cudaStream_t() const { return stream_; }  // NOLINT: it is one
  // Nothing behind it runs until the promise is kept.
  void hold(std::promise<void>& until) {
    simt::enqueue(stream_, [until = until.get_future().share()] { until.wait(); });
  }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  explicit Event(unsigned flags = cudaEventDefault) { cudaEventCreateWithFlags(&event_, flags); }
  ~Event() { cudaEventDestroy(event_); }
  operator cudaEvent_t() const { return event_; }  // NOLINT: it is one

 private:
  cudaEvent_t event_ = nullptr;
};

void store(int* to, int value) { *to = value; }

cudaError_t launch_store(cudaStream_t stream, int* to, int value) {
  cudaLaunchConfig_t config;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, store, to, value);
}

}  // namespace

TEST_CASE("a stream runs what was put on it later than the host goes on, in order", "[streams]") {
  std::promise<void> go;
  const Stream first;
  Stream held;
  const Event over, never;
  int seen = 0, value = 7, copied = 1;
  CHECK(cudaEventQuery(never) == cudaSuccess);
  held.hold(go);
  launch_store(held, &seen, value);
  value = 8;
  cudaMemcpyAsync(&copied, &seen, sizeof seen, cudaMemcpyDefault, held);
  launch_store(held, &seen, 9);
  cudaEventRecord(over, held);
  CHECK(cudaEventQuery(over) == cudaErrorNotReady);
  launch_store(first, &value, 5);
  cudaStreamSynchronize(first);
  CHECK((seen == 0 && copied == 1 && value == 5));
  go.set_value();
  cudaEventSynchronize(over);
  CHECK(cudaEventQuery(over) == cudaSuccess);
  CHECK((seen == 9 && copied == 7));
}

TEST_CASE("a stream that waits for an event waits for its last record, and for no later one", "[streams]") {
  std::promise<void> go, later;
  const Stream waiting;
  Stream held;
  const Event event;
  int seen = 0, copy = 0;
  held.hold(go);
  launch_store(held, &seen, 3);
  cudaEventRecord(event, held);
  cudaStreamWaitEvent(waiting, event);
  held.hold(later);
  cudaEventRecord(event, held);
  cudaMemcpyAsync(&copy, &seen, sizeof seen, cudaMemcpyDefault, waiting);
  CHECK(copy == 0);
  go.set_value();
  cudaStreamSynchronize(waiting);
  CHECK(copy == 3);
  CHECK(cudaEventQuery(event) == cudaErrorNotReady);
  later.set_value();
  cudaDeviceSynchronize();
  CHECK(cudaEventQuery(event) == cudaSuccess);
}

TEST_CASE("the time between two events is told when both have come, if they keep time", "[streams]") {
  const Stream stream;
  const Event begin, end, untimed(cudaEventDisableTiming);
  float ms = -1;
  CHECK(cudaEventElapsedTime(&ms, begin, end) == cudaErrorInvalidResourceHandle);
  cudaEventRecord(begin, stream);
  simt::enqueue(stream, [] { std::this_thread::sleep_for(std::chrono::milliseconds(2)); });
  cudaEventRecord(end, stream);
  cudaEventRecord(untimed, stream);
  cudaStreamSynchronize(stream);
  CHECK(cudaEventElapsedTime(&ms, begin, end) == cudaSuccess);
  CHECK(ms >= 2);
  CHECK(cudaEventElapsedTime(&ms, begin, untimed) == cudaErrorInvalidResourceHandle);
}

TEST_CASE("a host function runs in its turn on the stream, and destroying a stream loses nothing", "[streams]") {
  int seen = 0;
  {
    std::promise<void> go;
    Stream stream;
    stream.hold(go);
    launch_store(stream, &seen, 1);
    cudaLaunchHostFunc(
        stream, [](void* value) { *static_cast<int*>(value) *= 10; }, &seen);
    CHECK(seen == 0);
    go.set_value();
  }
  CHECK(seen == 10);
}
