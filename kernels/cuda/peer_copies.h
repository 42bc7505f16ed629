// Copies from one process's GPU to another process's, two GPUs of one machine: bytes alone, straight from memory to memory.
// A way goes in one direction between two processes and carries one transfer after another. The law: no function here
// waits for anybody; who opened a way asks it again and again how far it is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace troupe {

struct PeerPiece {
  void* data = nullptr;  // device memory
  std::size_t size = 0;  // bytes, more than none
};

class PeerWay {
 public:
  enum class State : std::uint8_t { opening, open, broken, closed };
  virtual ~PeerWay() = default;
  // Puts a transfer behind those before it. The other end must start one with pieces of the same sizes, in the same order.
  // The memory stays as it is (receiving: belongs to the way) until the transfer is over, or the way closed.
  virtual void start(const std::vector<PeerPiece>& pieces) = 0;
  // Makes progress; how many of the transfers that were started are over.
  virtual std::uint64_t poll() = 0;
  virtual State state() const = 0;
  virtual const std::string& problem() const = 0;  // of a broken one
  // Ends all that is under way; some time later it is closed, and nobody touches the memory of its transfers any more.
  virtual void abort() = 0;
};

class PeerCopies {
 public:
  using Id = std::array<char, 128>;      // of a way: one end makes it, both open with it
  using GpuName = std::array<char, 16>;  // of no two GPUs the same
  virtual ~PeerCopies() = default;
  virtual GpuName gpu() const = 0;
  virtual Id make_id() = 0;
  virtual std::unique_ptr<PeerWay> open(const Id& id, bool sends) = 0;
};

// Sets CUDA up for a process that will copy so: all kernels are loaded at the beginning, since to load one may wait for
// what runs on the GPU, and a send's kernel waits for another process; and streams get hardware queues of their own as far
// as there are any, since what stands in one behind such a kernel waits too. What the environment says of either stands.
// REQUIRES: CUDA has not been used yet.
void expect_peer_copies();
// By NCCL, of the GPU of this number as CUDA counts; null and why, where that can't be. The calling thread is the one that
// will use it.
std::unique_ptr<PeerCopies> open_peer_copies(int gpu, std::string& problem);

}  // namespace troupe
