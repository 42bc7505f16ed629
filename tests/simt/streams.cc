// What the host calls: memory, streams and events. A stream is a thread that takes from a queue, so that it runs beside
// the host and the other streams; some of the time it lags by a drawn amount, so whoever forgot to wait for it is seen. A
// copy leaves its target as memory that nobody wrote until it ends, and memory that is freed holds no numbers either.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <cuda_runtime.h>
#include <malloc.h>

namespace simt {

namespace {

using Clock = std::chrono::steady_clock;

void pause_us(std::uint64_t us) {
  if (us > 0) std::this_thread::sleep_for(std::chrono::microseconds(us));
}

class Stream {
 public:
  explicit Stream(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15U | 1U), worker_([this] { work(); }) {}
  ~Stream() {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    changed_.notify_all();
    worker_.join();
  }
  void put(std::function<void()> work) {
    {
      const std::lock_guard lock(mutex_);
      queue_.push_back(std::move(work));
      ++put_;
    }
    changed_.notify_all();
  }
  // For what is on it now.
  void wait() {
    std::unique_lock lock(mutex_);
    const std::uint64_t until = put_;
    changed_.wait(lock, [&] { return done_ >= until; });
  }

 private:
  static constexpr std::uint64_t kMoods = 32, kLagging = 3, kRare = 8, kLongestUs = 250;

  std::uint64_t draw() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    return state_ ^= state_ << 17;
  }
  // In one mood it runs ahead, in another it falls behind now and then; a mood lasts a while.
  void lag() {
    if (steps_++ % kMoods == 0) lags_ = draw() % kLagging == 0;
    if (lags_ && draw() % kRare == 0) pause_us(draw() % kLongestUs);
  }
  void work() {
    for (;;) {
      std::function<void()> next;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return !queue_.empty() || closing_; });
        if (queue_.empty()) return;
        next = std::move(queue_.front());
        queue_.pop_front();
      }
      lag();
      next();
      next = nullptr;
      {
        const std::lock_guard lock(mutex_);
        ++done_;
      }
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  std::uint64_t put_ = 0, done_ = 0;
  bool closing_ = false;
  std::uint64_t state_, steps_ = 0;
  bool lags_ = false;
  std::thread worker_;
};

// One cudaEventRecord: over when its stream has come to it.
struct Record {
  std::mutex mutex;
  std::condition_variable changed;
  bool over = false;
  std::int64_t ns = 0;
  void end() {
    {
      const std::lock_guard lock(mutex);
      over = true;
      ns = Clock::now().time_since_epoch().count();
    }
    changed.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return over; });
  }
  bool is_over() {
    const std::lock_guard lock(mutex);
    return over;
  }
};

std::atomic<std::int64_t> launches, copies, in_bytes, out_bytes, records, waits;
std::atomic<int> copy_us, kernel_us;
std::atomic<bool> copies_held;

// At the process's end a line goes to the file that TROUPE_TEST_COPIES names: what copies of its own streams moved.
void tell_copies() {
  const char* const name = std::getenv("TROUPE_TEST_COPIES");
  std::FILE* const file = name == nullptr ? nullptr : std::fopen(name, "a");
  if (file == nullptr) return;
  std::fprintf(file, "in %lld out %lld\n", static_cast<long long>(in_bytes), static_cast<long long>(out_bytes));
  std::fclose(file);
}

// Of the process; it outlives whoever frees memory late.
struct Streams {
  std::mutex mutex;
  std::map<cudaStream_t, std::shared_ptr<Stream>> all;
  std::uint64_t made = 0;
  static Streams& get() {
    static Streams& streams = make();
    return streams;
  }
  static Streams& make() {
    std::atexit(tell_copies);
    return *new Streams;
  }
  std::shared_ptr<Stream> find(cudaStream_t stream) {
    const std::lock_guard lock(mutex);
    if (const auto found = all.find(stream); found != all.end()) return found->second;
    if (stream == nullptr) return all[nullptr] = std::make_shared<Stream>(++made);
    std::fprintf(stderr, "a stream that isn't there is used\n");
    std::abort();
  }
  std::vector<std::shared_ptr<Stream>> list() {
    const std::lock_guard lock(mutex);
    std::vector<std::shared_ptr<Stream>> streams;
    for (const auto& [name, stream] : all) streams.push_back(stream);
    return streams;
  }
};

cudaError_t take(void** data, std::size_t size) {
  const std::size_t padded = (std::max<std::size_t>(size, 1) + 255) / 256 * 256;
  *data = std::aligned_alloc(256, padded);
  if (*data == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*data, kUnwritten, padded);
  return cudaSuccess;
}

void give_back(void* data) {
  if (data != nullptr) std::memset(data, kUnwritten, malloc_usable_size(data));
  std::free(data);
}

void copy(void* to, const void* from, std::size_t size) {
  auto *target = static_cast<unsigned char*>(to), *end = target + size;
  const auto* source = static_cast<const unsigned char*>(from);
  const bool apart = end <= source || source + size <= target;
  if (apart && size > 0) std::memset(to, kUnwritten, size);
  pause_us(static_cast<std::uint64_t>(copy_us.load()));
  while (copies_held) pause_us(100);
  std::memmove(to, from, size);
}

}  // namespace

void enqueue(cudaStream_t stream, std::function<void()> work) { Streams::get().find(stream)->put(std::move(work)); }
void count_launch() { ++launches; }
Counts counts() { return {launches, copies, in_bytes, out_bytes, records, waits}; }
void slow_copies(int us) { copy_us = us; }
void hold_copies(bool held) { copies_held = held; }
void slow_kernels(int us) { kernel_us = us; }
void rest_as_slow_kernels() { pause_us(static_cast<std::uint64_t>(kernel_us.load())); }

}  // namespace simt

struct simt_stream {};
struct simt_event {
  std::mutex mutex;
  bool timed = true;
  std::shared_ptr<simt::Record> last;  // null: none was recorded, which counts as over
  std::shared_ptr<simt::Record> record() {
    const std::lock_guard lock(mutex);
    return last;
  }
};

using simt::Streams;

// Two GPUs that differ by their names alone: memory and streams are the process's.
constexpr int kGpus = 2;
thread_local int own_gpu = 0;

cudaError_t cudaGetDeviceCount(int* count) {
  *count = kGpus;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= kGpus) return cudaErrorInvalidDevice;
  own_gpu = device;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = own_gpu;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 2;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  *properties = {};
  properties->uuid.bytes[0] = static_cast<char>(device + 1);
  properties->totalGlobalMem = std::size_t{1} << 33;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* all_bytes) {
  *free_bytes = *all_bytes = std::size_t{1} << 33;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** data, std::size_t size) { return simt::take(data, size); }
// What is under way may use it: that ends first.
cudaError_t cudaFree(void* data) {
  if (data != nullptr) cudaDeviceSynchronize();
  simt::give_back(data);
  return cudaSuccess;
}
cudaError_t cudaMallocAsync(void** data, std::size_t size, cudaStream_t) { return simt::take(data, size); }
cudaError_t cudaFreeAsync(void* data, cudaStream_t stream) {
  simt::enqueue(stream, [data] { simt::give_back(data); });
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** data, std::size_t size, unsigned) { return simt::take(data, size); }
// As cudaFree: it waits for all that runs, whoever started it.
cudaError_t cudaFreeHost(void* data) {
  if (data != nullptr) cudaDeviceSynchronize();
  simt::give_back(data);
  return cudaSuccess;
}
cudaError_t cudaMemset(void* data, int value, std::size_t size) {
  simt::enqueue(nullptr, [=] { std::memset(data, value, size); });
  return cudaSuccess;
}
// The source may be used again when it returns; to the device, the copy may still be on its way.
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t size, cudaMemcpyKind kind) {
  if (kind == cudaMemcpyHostToDevice) {
    const auto* begin = static_cast<const unsigned char*>(from);
    simt::enqueue(nullptr, [to, bytes = std::vector<unsigned char>(begin, begin + size)] {
      if (!bytes.empty()) std::memcpy(to, bytes.data(), bytes.size());
    });
    return cudaSuccess;
  }
  simt::enqueue(nullptr, [=] { std::memmove(to, from, size); });
  return cudaStreamSynchronize(nullptr);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind kind, cudaStream_t stream) {
  ++simt::copies;
  if (kind == cudaMemcpyHostToDevice) simt::in_bytes += static_cast<std::int64_t>(size);
  if (kind == cudaMemcpyDeviceToHost) simt::out_bytes += static_cast<std::int64_t>(size);
  simt::enqueue(stream, [=] { simt::copy(to, from, size); });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  if (flags != cudaStreamNonBlocking) return cudaErrorInvalidValue;
  *stream = new simt_stream;
  const std::lock_guard lock(Streams::get().mutex);
  Streams::get().all[*stream] = std::make_shared<simt::Stream>(++Streams::get().made);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  std::shared_ptr<simt::Stream> gone = Streams::get().find(stream);
  {
    const std::lock_guard lock(Streams::get().mutex);
    Streams::get().all.erase(stream);
  }
  gone->wait();
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Streams::get().find(stream)->wait();
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  for (const std::shared_ptr<simt::Stream>& stream : Streams::get().list()) stream->wait();
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  ++simt::waits;
  if (const auto record = event->record()) simt::enqueue(stream, [record] { record->wait(); });
  return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument) {
  simt::enqueue(stream, [=] { function(argument); });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = new simt_event;
  (*event)->timed = (flags & cudaEventDisableTiming) == 0;
  return cudaSuccess;
}
// Whoever waits for it goes on waiting for its last record.
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  ++simt::records;
  const auto record = std::make_shared<simt::Record>();
  {
    const std::lock_guard lock(event->mutex);
    event->last = record;
  }
  simt::enqueue(stream, [record] { record->end(); });
  return cudaSuccess;
}
// Whoever asks again and again leaves the processor to the streams.
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const auto record = event->record();
  if (!record || record->is_over()) return cudaSuccess;
  std::this_thread::yield();
  return cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (const auto record = event->record()) record->wait();
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t begin, cudaEvent_t end) {
  const auto first = begin->record(), last = end->record();
  if (!first || !last || !begin->timed || !end->timed) return cudaErrorInvalidResourceHandle;
  if (!first->is_over() || !last->is_over()) return cudaErrorNotReady;
  *ms = static_cast<float>(last->ns - first->ns) * 1e-6F;
  return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorNotReady:
      return "device not ready";
  }
  return "unknown error";
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
