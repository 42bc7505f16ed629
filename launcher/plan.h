// The plan: where every actor lives and its peak memory by kind and by place (kernels/device.h), from the same layout
// code that the run uses. What is printed is the sum of both places, which on a CPU are memory of the process; with a
// GPU, what of it is the GPU's.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "actors/config.h"
#include "actors/rules/placement.h"
#include "messages/address.h"

namespace troupe {

struct ActorPlan {
  Address address;
  std::uint32_t node = 0;
  std::string holds;  // "layers 0-1, embedding"
  std::size_t weights = 0, moments = 0, gradients = 0, activations = 0, stash = 0, buffers = 0;
  std::size_t shared = 0;   // of these, what lies in shared memory: payloads too
  std::size_t carried = 0;  // of what is shared: payloads that ops alone read; a GPU's where that reaches who gets them
  std::size_t total() const { return weights + moments + gradients + activations + stash + buffers; }
  std::size_t device() const { return total() - shared; }
};

struct NodePlan {
  std::uint32_t node = 0;
  std::size_t actors = 0, data = 0, messages = 0;
  std::size_t process = 0;  // program, libraries, threads' scratch, and launcher/plan_overhead.h's
  std::size_t device = 0;   // what ops alone touch, at most: of the actors', and with a GPU of payloads
  std::size_t total() const { return actors + process + data + messages; }
};

struct Plan {
  std::vector<ActorPlan> actors;
  std::vector<NodePlan> nodes;
};

// One actor of a layout, without its node.
ActorPlan plan_stage(const Config& config, int replica, const StageShape& shape);
ActorPlan plan_shard(const Config& config, const StageShape& shape, int shard);
// What the process of a node takes beside actors, messages, data, journal and its threads' scratch: program, libraries, small
// blocks, transport.
std::size_t process_bytes(const Config& config, std::uint32_t node);
// Rows on their way, once, to and from so many stage actors.
std::size_t row_bytes(const Config& config, std::size_t stages);
// A GPU's staging memory (kernels/cuda/stager.h), where there are other nodes.
std::size_t staging_bytes(const Config& config);

// corpus_bytes: resident bytes of the data, on node 0.
Plan make_plan(const Config& config, std::size_t corpus_bytes);
std::string describe(const Config& config, const Plan& plan);

}  // namespace troupe
