// A way is a communicator of two ranks and a stream of its own: rank 0 sends, rank 1 receives. One communicator for both
// directions could deadlock: its operations run one after another on each GPU, and where one process had put its send
// first and the other its own too, each would wait for a receive that stands behind. Of a way both ends run the same
// transfers in the same order.
//
// A send's kernel stays on the GPU until the receiver's has started. So nothing that waits for the whole GPU (a
// cudaDeviceSynchronize, a cudaFree, a cudaFreeHost, the loading of a kernel) may stand in the loop thread's way while
// transfers are under way: two loops could wait for each other's kernels.
#include "kernels/cuda/peer_copies.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <thread>
#include <utility>

#include "kernels/cuda/nccl.h"
#include "kernels/cuda/runtime.h"

namespace troupe {

namespace {

using cuda::must;
using cuda::Nccl;

constexpr int kSender = 0, kReceiver = 1;
constexpr int kBlocksMax = 4;  // multiprocessors that a transfer takes from the ops, at most

// What ends after its way.
struct Held {
  const Nccl& nccl;
  int gpu = 0;
  ncclComm_t communicator = nullptr;
  cudaStream_t stream = nullptr;
  std::vector<cudaEvent_t> events;  // all there are
  std::atomic<bool> closed = false;

  // It may wait for kernels to end: on a thread of its own.
  void close() {
    cudaSetDevice(gpu);
    if (communicator != nullptr) nccl.abort(communicator);
    for (const cudaEvent_t event : events) cudaEventDestroy(event);
    if (stream != nullptr) cudaStreamDestroy(stream);
    closed.store(true, std::memory_order_release);
  }
};

class NcclWay final : public PeerWay {
 public:
  NcclWay(const Nccl& nccl, int gpu, const PeerCopies::Id& id, bool sends)
      : nccl_(nccl), sends_(sends), held_(std::make_shared<Held>(nccl, gpu)) {
    must(cudaSetDevice(gpu), "choosing the GPU");
    int least = 0, greatest = 0;
    must(cudaDeviceGetStreamPriorityRange(&least, &greatest), "asking for priorities");
    must(cudaStreamCreateWithPriority(&held_->stream, cudaStreamNonBlocking, greatest), "making a stream");
    ncclUniqueId unique{};
    static_assert(sizeof unique == sizeof id);
    std::memcpy(&unique, id.data(), sizeof unique);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.minCTAs = 1;
    config.maxCTAs = kBlocksMax;
    check(nccl.open(&held_->communicator, 2, unique, sends ? kSender : kReceiver, &config), "opening a communicator");
  }
  ~NcclWay() override { abort(); }
  NcclWay(const NcclWay&) = delete;
  NcclWay& operator=(const NcclWay&) = delete;

  void start(const std::vector<PeerPiece>& pieces) override { waiting_.push_back(pieces); }

  std::uint64_t poll() override {
    if (state_ == State::opening || state_ == State::open) progress();
    return over_;
  }

  State state() const override {
    return state_ == State::closed && !held_->closed.load(std::memory_order_acquire) ? State::broken : state_;
  }
  const std::string& problem() const override { return problem_; }

  void abort() override {
    if (state_ == State::closed) return;
    state_ = State::closed;
    std::thread([held = held_] { held->close(); }).detach();
  }

 private:
  bool check(ncclResult_t result, const char* what) {
    if (result == ncclSuccess || result == ncclInProgress) return true;
    problem_ = fmt::format("NCCL: {}: {}", what, nccl_.words(result));
    state_ = State::broken;
    return false;
  }

  // Whether NCCL is done with what it was last asked; it works on that in threads of its own.
  bool settled() {
    ncclResult_t result = ncclSuccess;
    if (!check(nccl_.ask(held_->communicator, &result), "asking for errors")) return false;
    return check(result, "a transfer") && result == ncclSuccess;
  }

  void progress() {
    const bool rests = state_ == State::open && !issuing_ && waiting_.empty() && flights_.empty();
    if (rests || !settled()) return;
    state_ = State::open;
    if (issuing_) record();
    while (!waiting_.empty() && issue())
      if (issuing_) return;
    while (!flights_.empty()) {
      const cudaError_t result = cudaEventQuery(flights_.front());
      if (result == cudaErrorNotReady) return;
      if (result != cudaSuccess) {
        problem_ = fmt::format("CUDA: a transfer: {}", cudaGetErrorString(result));
        state_ = State::broken;
        return;
      }
      idle_.push_back(flights_.front());
      flights_.pop_front();
      ++over_;
    }
  }

  // The oldest that waits; its pieces are one launch.
  bool issue() {
    const std::vector<PeerPiece> pieces = std::move(waiting_.front());
    waiting_.pop_front();
    if (!check(nccl_.begin_group(), "beginning a group")) return false;
    bool fine = true;
    for (const PeerPiece& piece : pieces) {
      const ncclResult_t result =
          sends_ ? nccl_.send(piece.data, piece.size, ncclUint8, kReceiver, held_->communicator, held_->stream)
                 : nccl_.receive(piece.data, piece.size, ncclUint8, kSender, held_->communicator, held_->stream);
      fine = fine && check(result, sends_ ? "sending" : "receiving");
    }
    const ncclResult_t result = nccl_.end_group();
    if (!check(result, "ending a group") || !fine) return false;
    issuing_ = true;
    if (result == ncclSuccess) record();
    return state_ == State::open;
  }

  // Behind the transfer, which is on the stream now and not before.
  void record() {
    issuing_ = false;
    if (idle_.empty()) {
      cudaEvent_t event = nullptr;
      must(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
      held_->events.push_back(event);
      idle_.push_back(event);
    }
    must(cudaEventRecord(idle_.back(), held_->stream), "recording an event");
    flights_.push_back(idle_.back());
    idle_.pop_back();
  }

  const Nccl& nccl_;
  const bool sends_;
  std::shared_ptr<Held> held_;
  State state_ = State::opening;
  std::string problem_;
  std::deque<std::vector<PeerPiece>> waiting_;  // for NCCL to take them
  bool issuing_ = false;                        // it has one more than flights_ knows
  std::deque<cudaEvent_t> flights_;
  std::vector<cudaEvent_t> idle_;
  std::uint64_t over_ = 0;
};

class NcclCopies final : public PeerCopies {
 public:
  NcclCopies(const Nccl& nccl, int gpu) : nccl_(nccl), gpu_(gpu) {
    cudaDeviceProp properties{};
    must(cudaGetDeviceProperties(&properties, gpu), "asking for the GPU's name");
    std::copy_n(properties.uuid.bytes, name_.size(), name_.begin());
  }
  GpuName gpu() const override { return name_; }
  Id make_id() override {
    ncclUniqueId unique{};
    if (const ncclResult_t result = nccl_.make_id(&unique); result != ncclSuccess)
      throw Error("NCCL: making a name for a communicator: {}", nccl_.words(result));
    Id id{};
    std::memcpy(id.data(), &unique, sizeof unique);
    return id;
  }
  std::unique_ptr<PeerWay> open(const Id& id, bool sends) override {
    return std::make_unique<NcclWay>(nccl_, gpu_, id, sends);
  }

 private:
  const Nccl& nccl_;
  const int gpu_;
  GpuName name_{};
};

}  // namespace

// CUDA has no functions for either.
void expect_peer_copies() {
  setenv("CUDA_MODULE_LOADING", "EAGER", 0);
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
}

std::unique_ptr<PeerCopies> open_peer_copies(int gpu, std::string& problem) {
  const Nccl* const nccl = cuda::open_nccl(problem);
  if (nccl == nullptr) return nullptr;
  return std::make_unique<NcclCopies>(*nccl, gpu);
}

}  // namespace troupe
