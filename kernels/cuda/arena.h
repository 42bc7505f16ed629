// Memory of the ops on one stream, which run one after another: what an op takes lives until the next reset(). It is
// taken and freed in the stream's order: no thread waits for a GPU, where a transfer may wait for another process.
#pragma once

#include <vector>

#include "kernels/cuda/runtime.h"

namespace troupe::cuda {

class Arena final : public Queue {
 public:
  explicit Arena(cudaStream_t stream, bool warpgroups = false) : stream_(stream), warpgroups_(warpgroups) {}
  ~Arena() override;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  cudaStream_t stream() override { return stream_; }
  bool warpgroups() const override { return warpgroups_; }
  void* take_bytes(std::size_t size) override;
  // Kernels under way keep what they have: kernels of a later op run after them.
  void reset();
  std::size_t size() const;

 private:
  struct Block {
    void* data = nullptr;
    std::size_t size = 0, used = 0;
  };
  cudaStream_t stream_;
  bool warpgroups_;
  std::vector<Block> blocks_;
};

}  // namespace troupe::cuda
