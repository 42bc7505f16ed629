// The GPU for whoever names concrete devices. A program that was built without CUDA has these functions too
// (absent.cc): they say so.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/measured_device.h"
#include "kernels/watch.h"

namespace troupe {

struct CudaOptions {
  int index = 0;            // of the GPU, as CUDA counts
  int segments_ahead = 2;   // on the stream at once
  bool profiled = false;    // times every op: the stream then runs one at a time
  bool warpgroups = false;  // products that can go to them do (kernels/cuda/product_wgmma.h)
  bool library = false;     // products that cuBLASLt can do are its (kernels/cuda/library.h)
  std::size_t staging = 0;  // bytes of the GPU's memory that operands in pinned memory pass through; 0: none do
  std::size_t staged_min = std::size_t{64} << 10;  // bytes of an operand that does
  Watch* watch = nullptr;                          // outlives the device
};

struct Gpu {
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  std::size_t memory = 0, free = 0;  // bytes
  std::string problem;               // why it can't be used; empty: it can
};

struct Gpus {
  std::vector<Gpu> all;
  std::string problem;          // why there are none; empty: there are
  int driver = 0, runtime = 0;  // versions, 1000 major + 10 minor; 0: none
};

Gpus look_for_gpus();  // never throws
// Opens the GPU, which takes some tenths of a second the first time, and fills in `free`, or `problem` where it can't.
void ask_free_memory(int index, Gpu& gpu);
// Whether what a device gave as its own memory (Place::device) is the processor's to everybody else.
bool is_processors_memory(const void* data);
// Throws Error: there is no such GPU, or it can't be used.
std::unique_ptr<MeasuredDevice> open_cuda(const CudaOptions& options);

}  // namespace troupe
