#include "launcher/plan_overhead.h"

#include <algorithm>

#include "actors/grains.h"
#include "actors/rules/dispatch.h"
#include "actors/rules/placement.h"
#include "actors/rules/recovery.h"
#include "actors/rules/state_arrays.h"
#include "actors/rules/sum_range.h"
#include "actors/rules/trainable.h"
#include "actors/stage_memory.h"
#include "kernels/base/recycled.h"
#include "kernels/model/parameter_block.h"
#include "messages/message.h"

namespace troupe {

namespace {

constexpr std::size_t kKiB = 1024;
// Measured with heaptrack on Debian 12. An actor: itself, its page on the board, what CAF has of it, views of its
// tensors. A tensor: its name and place in some lists, and the segment that draws or updates it; with the conductor its
// squares.
constexpr std::size_t kActorBytes = 32 * kKiB, kTensorBytes = 4 * kKiB, kSquaresBytes = kKiB / 4;
// A way to a shard of one layer, to and fro: what waits, credits, whose turn it is. A part of a snapshot until it is
// written.
constexpr std::size_t kChannelBytes = kKiB, kPartBytes = 5 * kKiB / 2;
// Lists of ops: of a layer's forward or backward pass, of its weight gradients, of those of an expert in one chunk.
constexpr std::size_t kPassBytes = 32 * kKiB, kGradientBytes = 16 * kKiB, kExpertBytes = 2 * kKiB;

constexpr std::size_t to_size(std::int64_t count) { return static_cast<std::size_t>(count); }

// What a payload of this size makes resident; beyond its size.
std::size_t in_pages(std::size_t size) {
  return (size + PayloadPool::kPage - 1) / PayloadPool::kPage * PayloadPool::kPage;
}
std::size_t unfilled(std::size_t size) { return in_pages(size) - size; }

// A segment of so many ops from its making until its actor knows its end: the list, and its places in queues.
std::size_t segment_bytes(std::size_t ops) { return block_bytes(ops * sizeof(Op)) + 4 * sizeof(Segment); }

// A message with a payload, or the end of the segment that makes or takes it: in a mailbox, in a map of the actor, and
// what counts references to the payload and to its memory.
std::size_t message_bytes() { return block_bytes(sizeof(Envelope)) + 3 * 128; }

}  // namespace

// Of what twins send each other a node holds once what stays on it: of each ordered pair of replicas with an end here
// the partial sums of a part, and of each replica here the part that it has added. Of these ActorPlan counts elements,
// at both ends: more than pages may hold.
Overhead sums_overhead(const Config& config, std::int64_t elements, int here) {
  const std::int64_t replicas = config.layout.replicas;
  if (replicas == 1 || here == 0 || elements == 0) return {};
  const std::int64_t part = part_elements_max(elements, config.layout.replicas);
  std::size_t pages = 0, segments = 0, messages = 0;  // of a part
  for (const SumRange& range : cut_sums({0, part}, config.layout.sums_elements_max)) {
    pages += in_pages(to_size(range.count) * 4);
    segments += to_size((range.count + piece_of(range.count) - 1) / piece_of(range.count));
    ++messages;
  }
  const std::size_t passing = to_size(here * (2 * replicas - here - 1)), added = to_size(here);
  const std::size_t counted = to_size(here * (2 * replicas - 1) * part) * 4, held = (passing + added) * pages;
  Overhead sums;
  sums.pages = held > counted ? held - counted : 0;
  sums.blocks = (passing + added) * messages * message_bytes() + passing * segments * segment_bytes(1) +
                added * segments * segment_bytes(to_size(replicas));  // the tree's: an addition for each but the first
  return sums;
}

namespace {

// Of one stage, whichever of its replicas and shards are counted.
struct StageKind {
  int units = 0, moe_layers = 0;
  std::size_t tensors = 0, unfilled = 0;  // unfilled: by the parts of its snapshot
  std::size_t rope = 0;                   // cosines and sines
  std::int64_t elements = 0;              // that a replica accumulates
};

// Arrays of each tensor in a state.
std::size_t arrays(const Config& config) { return config.has_reference() ? kStateArrays : kStateArrays - 1; }

StageKind stage_kind(const Config& config, const StageShape& shape) {
  const std::vector<Parameter> parameters = stage_parameters(config, shape);
  const std::size_t positions = to_size(std::max(config.train.sequence_length, config.generate_length()));
  StageKind stage;
  stage.units = shape.layers + (shape.last && config.model.has_mtp() ? 1 : 0);
  stage.moe_layers = static_cast<int>(moe_layers_of(config, shape).size());
  stage.tensors = parameters.size();
  for (const Parameter& p : parameters) stage.unfilled += arrays(config) * unfilled(to_size(p.elements()) * 4);
  stage.rope = positions * to_size(config.model.qk_rope_head_dim) * 4;
  if (config.layout.replicas > 1)
    stage.elements =
        ParameterBlock(trainable_of(config, parameters)).elements() + shared_elements(shared_uses(config, shape));
  return stage;
}

std::size_t routed_rows(const Config& config) {
  return to_size(config.microbatch_rows()) * to_size(config.model.num_experts_per_tok);
}

// Of a microbatch's rows in one layer, for so many shards together.
std::size_t chunks_for(const Config& config, int shards) {
  return to_size(shards - 1 + chunks_max(config, static_cast<std::int64_t>(routed_rows(config))));
}

// A microbatch in a stage: its tokens, targets, positions and spans as they come; its weight gradients, which wait
// longest; rows for the shards and their gates, and for each chunk a message, and its answer where that comes from
// elsewhere.
Overhead slot_overhead(const Config& config, const StageKind& stage) {
  Overhead slot;
  slot.blocks = 6 * in_pages(to_size(config.microbatch_rows()) * 4) + to_size(stage.units) * kGradientBytes;
  if (stage.moe_layers == 0) return slot;
  const std::size_t routed = routed_rows(config), chunks = chunks_for(config, config.layout.expert_shards);
  slot.pages = in_pages(routed * 4) + PayloadPool::kPage;
  if (config.layout.nodes > 1) slot.pages += 2 * std::min(chunks, routed) * PayloadPool::kPage;
  slot.blocks += chunks * 2 * message_bytes();
  return slot;
}

// The same microbatch with so many of the stage's shards, which have so many experts: of each chunk the answer and its
// dots, the rows where they come from elsewhere, and what computes it.
Overhead chunks_overhead(const Config& config, int shards, int experts) {
  const std::size_t routed = routed_rows(config), chunks = std::min(routed, chunks_for(config, shards));
  Overhead all;
  all.pages = (config.layout.nodes > 1 ? 3 : 2) * chunks * PayloadPool::kPage;
  all.blocks = chunks * (2 * message_bytes() + segment_bytes(4)) + std::min(routed, to_size(experts)) * kExpertBytes;
  return all;
}

struct Here {
  int replicas = 0, shards = 0, experts = 0;
};

// What one stage and its shards add on a node.
Overhead stage_here(const Config& config, const StageKind& stage, const Here& here) {
  const std::size_t slots = to_size(config.slots() + config.generate_slots()), replicas = to_size(here.replicas),
                    in_flight = to_size(config.layout.replicas) * slots;
  Overhead all = sums_overhead(config, stage.elements, here.replicas);
  all += slot_overhead(config, stage) * (replicas * slots);
  all.blocks += replicas * (stage.tensors * kTensorBytes + stage.rope);
  if (here.shards == 0) return all;
  all += chunks_overhead(config, here.shards, here.experts) * in_flight;
  const std::size_t matrix = to_size(config.model.hidden_size) * to_size(config.model.moe_intermediate_size) * 4;
  const std::size_t tensors = to_size(3 * here.experts * stage.moe_layers);
  all.blocks += tensors * (kTensorBytes + arrays(config) * (kPartBytes + unfilled(matrix))) +
                to_size(config.layout.replicas * here.shards * stage.moe_layers) * kChannelBytes;
  return all;
}

}  // namespace

std::vector<Overhead> overheads(const Config& config, const std::map<Address, std::uint32_t>& places) {
  std::vector<Overhead> nodes(to_size(config.layout.nodes));
  std::vector<int> passes(nodes.size());  // a microbatch passes through one stage at a time
  for (const auto& [address, node] : places) nodes[node].blocks += kActorBytes;
  const auto copies = shadows(config);
  // Of an owner's tensors the conductor has squares, and who copies its state has lists.
  const auto tensors_elsewhere = [&](const Address& owner, std::size_t tensors) {
    nodes[0].blocks += tensors * kSquaresBytes;
    if (const auto copy = copies.find(owner); copy != copies.end())
      nodes[places.at(copy->second)].blocks += tensors * kTensorBytes;
  };
  for (const StageShape& shape : stage_shapes(config)) {
    const StageKind stage = stage_kind(config, shape);
    std::vector<Here> here(nodes.size());
    for (int r = 0; r < config.layout.replicas; ++r) {
      const Address address = stage_address(config, r, shape.stage);
      ++here[places.at(address)].replicas;
      tensors_elsewhere(address, stage.tensors);
    }
    for (int e = 0; has_expert_shards(config, shape) && e < config.layout.expert_shards; ++e) {
      const Address address = shard_address(config, shape.stage, e);
      const ExpertRange range = experts_of(config, e);
      ++here[places.at(address)].shards;
      here[places.at(address)].experts += range.end - range.begin;
      tensors_elsewhere(address, to_size(3 * (range.end - range.begin) * stage.moe_layers));
    }
    for (std::size_t n = 0; n < nodes.size(); ++n) {
      nodes[n] += stage_here(config, stage, here[n]);
      passes[n] = std::max(passes[n], here[n].replicas);
    }
    // Replica 0's tensors are the checkpoint's.
    nodes[places.at(stage_address(config, 0, shape.stage))].blocks +=
        stage.tensors * arrays(config) * kPartBytes + stage.unfilled;
  }
  const std::size_t slots = to_size(config.slots() + config.generate_slots());
  for (std::size_t n = 0; n < nodes.size(); ++n) nodes[n].blocks += to_size(passes[n]) * slots * kPassBytes;
  return nodes;
}

}  // namespace troupe
