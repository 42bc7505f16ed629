// NCCL as far as one GPU shows it: one rank that sends to itself. What two processes do is tried on the processor only
// (tests/simt/nccl.cc).
#include <cuda_runtime.h>

#include <thread>
#include <vector>

#include "kernels/cuda/nccl.h"
#include "kernels/cuda/peer_copies.h"
#include "kernels/cuda/runtime.h"

#include "tests/support/catch.h"

using namespace troupe;
using troupe::cuda::must;

TEST_CASE("one rank's group of a send and a receive to itself moves its bytes", "[peers]") {
  std::string problem;
  const cuda::Nccl* const nccl = cuda::open_nccl(problem);
  if (nccl == nullptr) {
    WARN("skipped: " << problem);
    return;
  }
  must(cudaSetDevice(0), "choosing the GPU");
  const auto copies = open_peer_copies(0, problem);
  REQUIRE(copies != nullptr);
  CHECK(copies->gpu() != PeerCopies::GpuName{});
  CHECK(copies->make_id() != copies->make_id());
  ncclUniqueId id{};
  REQUIRE(nccl->make_id(&id) == ncclSuccess);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  config.minCTAs = 1;
  config.maxCTAs = 4;
  ncclComm_t communicator = nullptr;
  ncclResult_t result = nccl->open(&communicator, 1, id, 0, &config);
  const auto settle = [&] {
    while (result == ncclInProgress) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      REQUIRE(nccl->ask(communicator, &result) == ncclSuccess);
    }
    REQUIRE(result == ncclSuccess);
  };
  settle();
  cudaStream_t stream = nullptr;
  must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
  const std::size_t size = (std::size_t{1} << 20) + 3;
  std::vector<unsigned char> sent(size), received(size);
  for (std::size_t i = 0; i < size; ++i) sent[i] = static_cast<unsigned char>(i * 7 + i / 256);
  void *from = nullptr, *to = nullptr;
  must(cudaMalloc(&from, size), "taking memory");
  must(cudaMalloc(&to, size), "taking memory");
  must(cudaMemcpy(from, sent.data(), size, cudaMemcpyHostToDevice), "copying to the GPU");
  must(cudaDeviceSynchronize(), "copying to the GPU");
  REQUIRE(nccl->begin_group() == ncclSuccess);
  for (const ncclResult_t one : {nccl->send(from, size, ncclUint8, 0, communicator, stream),
                                 nccl->receive(to, size, ncclUint8, 0, communicator, stream)})
    REQUIRE((one == ncclSuccess || one == ncclInProgress));
  result = nccl->end_group();
  settle();
  must(cudaStreamSynchronize(stream), "sending");
  must(cudaMemcpy(received.data(), to, size, cudaMemcpyDeviceToHost), "copying from the GPU");
  CHECK(received == sent);
  REQUIRE(nccl->abort(communicator) == ncclSuccess);
  cudaFree(from);
  cudaFree(to);
  cudaStreamDestroy(stream);
}
