// The machine that a run is on: which device computes, and with how many threads.
#pragma once

#include <cstdint>
#include <memory>

#include "actors/config.h"
#include "kernels/measured_device.h"
#include "kernels/watch.h"

namespace troupe {

int usable_cores();  // of this process

// Puts what this machine has in the place of device.kind = "auto" and device.threads = 0. A GPU counts as one thread.
void resolve_machine(Config& config);

// Throws Error: this machine doesn't have the device that the run asks for.
void expect_device(const Config& config);

// Whether each compute thread of `together` nodes of the run (0: all) has a core of this machine.
bool cores_enough(const Config& config, int together);

// The device of a node of this run, of which `together` nodes share this machine (0: all).
// REQUIRES: resolve_machine. Throws Error as expect_device does.
std::unique_ptr<MeasuredDevice> open_device(const Config& config, std::uint32_t node, bool profiled,
                                            Watch* watch = nullptr, int together = 0);

// As CUDA counts: of the GPU that this node computes with. REQUIRES: device.kind is "cuda", and there is one.
int gpu_of_node(std::uint32_t node);

// Processor or GPU, as far as bits depend on it: nodes of one run have the same.
std::string kind_of_machine(const Config& config);

}  // namespace troupe
