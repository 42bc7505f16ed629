#include "launcher/simulation/fold.h"

#include <algorithm>

#include "actors/rules/placement.h"
#include "kernels/base/error.h"
#include "messages/codec.h"

namespace troupe {

namespace {

void divide(int& number, int times, const char* key) {
  if (number % times != 0)
    throw Error("a fold of {} replicas into one needs {} ({}) to be a multiple of it", times, key, number);
  number /= times;
}

// Sums of twins as they leave, are added and come: little else of a step's end only adds and copies.
bool is_of_sums(const Segment& segment) {
  return std::all_of(segment.ops.begin(), segment.ops.end(),
                     [](const Op& op) { return std::holds_alternative<Add>(op) || std::holds_alternative<Copy>(op); });
}

// A replica exchanges with so many twins a part of its sums each, of as many parts as there are replicas: what one of the
// world's stands for.
double parts_of(int twins, int replicas, int simulated_twins, int simulated) {
  return static_cast<double>(twins) / replicas * simulated / simulated_twins;
}

bool is_of_shard(const Config& world, const Address& actor) {
  if (actor.role == Role::shadow) return owners(world).at(actor.index).role == Role::expert_shard;
  return actor.role == Role::expert_shard;
}

}  // namespace

Config folded(const Config& whole, const Fold& fold) {
  Config world = whole;
  if (fold.simulated == fold.replicas) return world;
  LayoutConfig& l = world.layout;
  if (fold.replicas != l.replicas || fold.replicas % fold.simulated != 0)
    throw Error("{} simulated replicas must divide layout.replicas ({})", fold.simulated, l.replicas);
  if (fold.simulated == 1)
    throw Error("one simulated replica has no twin to exchange sums with: simulate 2 of {} at least", l.replicas);
  if (l.nodes != l.replicas * l.stages || world.train.gradient_lanes != l.replicas)
    throw Error(
        "a fold needs a node for each of the {} replicas of each of the {} stages, and a gradient lane a replica",
        l.replicas, l.stages);
  if (l.replicas % world.hardware.devices_per_machine != 0)
    throw Error(
        "a fold needs hardware.devices_per_machine ({}) to divide layout.replicas ({}): the GPUs of a machine are of "
        "one "
        "stage",
        world.hardware.devices_per_machine, l.replicas);
  const int times = fold.times();
  l.shards_in_blocks = true;  // each where the part of its node is
  divide(l.nodes, times, "layout.nodes");
  divide(l.replicas, times, "layout.replicas");
  divide(world.train.batch_sequences, times, "train.batch_sequences");
  divide(world.train.microbatches, times, "train.microbatches");
  divide(world.train.gradient_lanes, times, "train.gradient_lanes");
  return world;
}

int hosts_of(int nodes_a_host, const Fold& fold) {
  return fold.times() == 1 || fold.simulated > nodes_a_host ? nodes_a_host : 1;
}

std::function<double(std::uint32_t, std::uint32_t, const Frame&)> frame_weights(int nodes_a_host, const Fold& fold) {
  if (fold.times() == 1) return {};
  const int near = hosts_of(nodes_a_host, fold);
  // Twins on the same host, where the world has none, have a port of their own, which is quicker.
  const int near_in_whole = std::min(nodes_a_host, fold.replicas - 1);
  const double far_sums = parts_of(fold.replicas - near_in_whole, fold.replicas, fold.simulated - near, fold.simulated);
  const double near_sums = near == 1 ? 1 : parts_of(near_in_whole - 1, fold.replicas, near - 1, fold.simulated);
  const double states = 1.0 / fold.times();
  return [near = static_cast<std::uint32_t>(near), far_sums, near_sums, states](std::uint32_t from, std::uint32_t to,
                                                                                const Frame& frame) {
    if (frame.payloads.empty()) return 1.0;
    if (brings<PartialSums>(frame) || brings<ReducedSums>(frame))
      return from / near == to / near ? near_sums : far_sums;
    return brings<ShadowGradient>(frame) ? states : 1.0;
  };
}

std::function<double(const Segment&)> segment_weights(const Config& world, std::uint32_t node, const Fold& fold) {
  if (fold.times() == 1) return {};
  std::vector<double> states;  // by the actor's place on its node
  for (const Address& actor : actors_on(place_actors(world), node))
    states.push_back(is_of_shard(world, actor) ? 1.0 / fold.times() : 1.0);
  const double sums = parts_of(fold.replicas - 1, fold.replicas, fold.simulated - 1, fold.simulated);
  return [states, sums](const Segment& segment) {
    if (segment.key.segment_class != SegmentClass::apply) return 1.0;
    const double state = states.at(segment.done.actor);
    return state == 1.0 && is_of_sums(segment) ? sums : state;
  };
}

}  // namespace troupe
