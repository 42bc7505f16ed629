// A CUDA runtime that runs kernels on the processor, for tests without a GPU: kernels/cuda is compiled against this
// header instead of NVIDIA's. A block's threads are fibers that run one at a time, in an order that a seed draws anew
// after every barrier: a kernel that lacks one gives other results, and one whose threads meet at different barriers is
// told. Memory that is asked for, a launch's shared memory too, begins as a pattern, so whoever reads what nobody wrote is
// seen; __shared__ variables keep what the block before left. Streams run beside the host and each other (streams.cc), now
// ahead and now behind. It is no model of speed.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static  // blocks run one after another

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}  // NOLINT: as CUDA's
};
struct uint2 {
  unsigned x, y;
};
struct uint3 {
  unsigned x, y, z;
};
struct uint4 {
  unsigned x, y, z, w;
};
struct float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// ---- What a thread sees ---------------------------------------------------------------------------------------------

extern uint3 threadIdx, blockIdx;  // of the thread that runs now
extern dim3 blockDim, gridDim;

namespace simt {

constexpr unsigned char kUnwritten = 0xC5;  // as bfloat16 and float32 a number, about -6000

void block_barrier();
// All lanes of `mask` give `size` bytes and see everybody's: lane i's at result + i * size.
const unsigned char* exchange(unsigned mask, const void* value, std::size_t size, const char* what);
void* dynamic_shared();
// The thread's own copies of 16 bytes into shared memory, in groups; what comes behind `bytes` is zero.
void copy_later(void* to, const void* from, int bytes);
void end_copies();
void finish_copies(int left);  // but for so many of the newest groups
// The thread's own other work that runs beside it, in groups.
void do_later(std::function<void()> work);
void end_work();
void finish_work(int left);
// The thread's own writes from shared memory, likewise.
void write_later(std::function<void()> work);
void end_writes();
void finish_writes(int left);
// So many threads of a block meet at the barrier of this number.
void meet(int number, unsigned threads);
// Barriers of a block by their place in shared memory: a phase is over when all have arrived and as many bytes were
// delivered as they expect. What is delivered later comes when somebody waits for it.
void begin_barrier(const void* barrier, int arrivals);
void arrive(const void* barrier, int expected_bytes);
void wait(const void* barrier, int parity);
void deliver_later(const void* barrier, void* to, int bytes, std::function<void()> work);

template <typename T>
T from_lane(unsigned mask, T value, int lane, const char* what) {
  const unsigned char* all = exchange(mask, &value, sizeof value, what);
  T result;
  std::memcpy(&result, all + static_cast<std::size_t>(lane & 31) * sizeof value, sizeof value);
  return result;
}
inline int lane() {
  return static_cast<int>((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32);
}

}  // namespace simt

inline void __syncthreads() { simt::block_barrier(); }
inline void __syncwarp(unsigned mask = 0xFFFFFFFFU) { simt::exchange(mask, "", 1, "__syncwarp"); }
template <typename T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  return simt::from_lane(mask, value, (simt::lane() / width) * width + from % width, "__shfl_sync");
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int distance, int width = 32) {
  const int own = simt::lane(), from = own ^ distance;
  return simt::from_lane(mask, value, from / width > own / width ? own : from, "__shfl_xor_sync");
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  const int own = simt::lane(), from = own - static_cast<int>(distance);
  return simt::from_lane(mask, value, from < (own / width) * width ? own : from, "__shfl_up_sync");
}
inline unsigned __ballot_sync(unsigned mask, int value) {
  const unsigned char* all = simt::exchange(mask, &value, sizeof value, "__ballot_sync");
  unsigned result = 0;
  for (unsigned i = 0; i < 32; ++i) {
    int one = 0;
    std::memcpy(&one, all + i * sizeof one, sizeof one);
    if ((mask >> i & 1U) != 0 && one != 0) result |= 1U << i;
  }
  return result;
}
// Of the values that the lanes of `mask` give.
inline unsigned __reduce_max_sync(unsigned mask, unsigned value) {
  const unsigned char* all = simt::exchange(mask, &value, sizeof value, "__reduce_max_sync");
  for (unsigned i = 0; i < 32; ++i) {
    unsigned one = 0;
    std::memcpy(&one, all + i * sizeof one, sizeof one);
    if ((mask >> i & 1U) != 0) value = std::max(value, one);
  }
  return value;
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value) { return ~__reduce_max_sync(mask, ~value); }

inline int __ffs(int value) { return value == 0 ? 0 : std::countr_zero(static_cast<unsigned>(value)) + 1; }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __uint_as_float(unsigned value) { return std::bit_cast<float>(value); }
inline int __float_as_int(float value) { return std::bit_cast<int>(value); }
inline float __int_as_float(int value) { return std::bit_cast<float>(value); }
using std::max;
using std::min;

template <typename T>
T atomicAdd(T* to, T value) {
  return std::exchange(*to, *to + value);
}

// ---- What the host calls --------------------------------------------------------------------------------------------

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidDevice = 101,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorNotReady = 600
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDefault = 4 };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaEventDefault = 0;
struct simt_stream;
struct simt_event;
using cudaStream_t = simt_stream*;
using cudaEvent_t = simt_event*;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};
// Nothing is registered here: all memory is the processor's.
enum cudaMemoryType { cudaMemoryTypeUnregistered = 0 };
struct cudaPointerAttributes {
  cudaMemoryType type = cudaMemoryTypeUnregistered;
};
inline cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void*) {
  *attributes = {};
  return cudaSuccess;
}
struct cudaUUID_t {
  char bytes[16] = {};
};
struct cudaDeviceProp {
  cudaUUID_t uuid;
  char name[256] = "processor";
  std::size_t totalGlobalMem = 0;
  int major = 9, minor = 0, multiProcessorCount = 2;
};

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* all_bytes);
cudaError_t cudaMalloc(void** data, std::size_t size);
cudaError_t cudaFree(void* data);
cudaError_t cudaHostAlloc(void** data, std::size_t size, unsigned flags);
cudaError_t cudaFreeHost(void* data);
cudaError_t cudaMallocAsync(void** data, std::size_t size, cudaStream_t stream);
cudaError_t cudaFreeAsync(void* data, cudaStream_t stream);
cudaError_t cudaMemset(void* data, int value, std::size_t size);
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t size, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
inline cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream);  // when all that is on it has run
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
using cudaHostFn_t = void (*)(void*);
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t begin, cudaEvent_t end);
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {
  return cudaSuccess;
}

namespace simt {
// Throws std::logic_error: no GPU takes such a launch.
void check_launch(const cudaLaunchConfig_t& config);
// Runs body for every thread of every block. Where threads wait for each other in vain it ends the program with a sentence.
void run(const cudaLaunchConfig_t& config, const std::function<void()>& body);

// Runs when all that was put on the stream before has run; until it returns, nothing behind it does. Null: the default
// stream. Streams that cudaStreamCreateWithFlags makes don't wait for that one, nor it for them.
void enqueue(cudaStream_t stream, std::function<void()> work);

// Since the process began.
struct Counts {
  std::int64_t launches = 0, copies = 0, in_bytes = 0, out_bytes = 0, records = 0, waits = 0;  // copies: asynchronous
};
Counts counts();
// From now on each asynchronous copy, and each kernel, takes so long at least.
void slow_copies(int us);
void hold_copies(bool held);  // asynchronous ones: while held, none ends
void slow_kernels(int us);
void count_launch();
void rest_as_slow_kernels();
}  // namespace simt

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  simt::check_launch(*config);
  simt::count_launch();
  std::tuple<Parameters...> values(static_cast<Parameters>(arguments)...);
  simt::enqueue(config->stream, [config = *config, kernel, values = std::move(values)] {
    simt::rest_as_slow_kernels();
    simt::run(config, [&] { std::apply(kernel, values); });
  });
  return cudaSuccess;
}
