// Who exists and where it lives: pure functions of the configuration.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "actors/config.h"
#include "kernels/device.h"
#include "kernels/model/parameters.h"
#include "messages/address.h"
#include "messages/message.h"

namespace troupe {

// A stage's run of layers: [first, first + count), and what it has besides.
struct StageShape {
  int stage = 0, first_layer = 0, layers = 0;
  bool first = false, last = false;  // embedding; head and MTP
};
// Layers are cut as evenly as their cost allows: the head counts as its share of a layer's products.
std::vector<StageShape> stage_shapes(const Config& config);

// Layers with experts that a stage routes, in order; the MTP layer has the number num_hidden_layers.
std::vector<int> moe_layers_of(const Config& config, const StageShape& shape);
// Experts [begin, end) of a shard.
struct ExpertRange {
  int begin = 0, end = 0;
};
ExpertRange experts_of(const Config& config, int shard);

std::vector<Parameter> stage_parameters(const Config& config, const StageShape& shape);
std::vector<Parameter> shard_parameters(const Config& config, const StageShape& shape, int shard);
bool has_expert_shards(const Config& config, const StageShape& shape);

// By how many microbatches a stage's forwards may run ahead of its backwards before those go first: one for each stage
// from this one to the last, of every replica. So many are under way when the first backward comes; with one less, a
// stage behind would wait.
inline std::int32_t forward_lead(const Config& config, int stage) {
  return config.layout.replicas * (config.layout.stages - stage);
}
// A weight gradient ends with a free slot, and is as urgent as the forward that will take it; if none will, not at all.
inline std::int32_t weights_lead(const Config& config, int stage, std::int32_t microbatch) {
  const std::int32_t until_forward = config.layout.replicas * config.slots();
  return microbatch + until_forward < config.train.microbatches ? forward_lead(config, stage) - until_forward
                                                                : SegmentKey::kNoLead;
}

// What work beside the learning is for, in the bill.
inline Use side_of(const Config& config, WorkKind kind) {
  if (kind == WorkKind::score || kind == WorkKind::reference) return Use::score;
  return kind == WorkKind::generate && config.has_rollouts() ? Use::rollout : Use::evaluate;
}

Address stage_address(const Config& config, int replica, int stage);
Address shard_address(const Config& config, int stage, int shard);

// Owners and their nodes.
std::map<Address, std::uint32_t> place_owners(const Config& config);
// Every actor of the run and its node. Replicas' stages and their shards are spread evenly; loader, conductor and
// checkpointer live on node 0.
std::map<Address, std::uint32_t> place_actors(const Config& config);
// In the order in which they are made.
std::vector<Address> actors_on(const std::map<Address, std::uint32_t>& places, std::uint32_t node);
// Who writes tokens: one for each replica where there are tasks, else one.
std::vector<Address> rollouts(const Config& config);
// Those who are told of a Restore before the holders are: loader, checkpointer, rollouts, rollout buffer, judge.
std::vector<Address> leaders(const Config& config);
// Stage actors and expert shards: those who own state and vote.
std::vector<Address> owners(const Config& config);
// Owners whose tensors a checkpoint holds: replica 0's stages and all shards.
std::vector<Address> snapshot_owners(const Config& config);

}  // namespace troupe
