// Fold: a few replicas stand for all. Replicas are equal copies: each does the same work on microbatches of its own, and
// its devices hold an equal share of the experts' shards. So a world of a part of the replicas, on as large a part of the
// nodes, with as large a part of the batch, and with all shards, several where the whole has one, does per device what
// the whole does: a node's shards get as many chunks, of the same rows, from few replicas as its one shard would have got
// from all. What is not in proportion is put right: work on the shards' state, of which a node holds several shares, and
// the parts of sums that replicas exchange, fewer and larger ones. What is lost: shards of one node share their luck.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "actors/config.h"
#include "kernels/device.h"
#include "messages/transport.h"

namespace troupe {

struct Fold {
  int replicas = 1, simulated = 1;  // of the whole, of the world
  int times() const { return replicas / simulated; }
};

// The configuration of the world that stands for the whole. Throws Error where the layout has no such part.
Config folded(const Config& whole, const Fold& fold);

// How many nodes of the world share a host, where so many of the whole do: all, or none, so that the replicas of a stage
// have twins on other hosts in both.
int hosts_of(int nodes_a_host, const Fold& fold);
// What a frame's bytes stand for. REQUIRES: a node has one stage actor, and those of a stage follow one another.
std::function<double(std::uint32_t, std::uint32_t, const Frame&)> frame_weights(int nodes_a_host, const Fold& fold);
// What a segment's time stands for on this node of the world.
std::function<double(const Segment&)> segment_weights(const Config& world, std::uint32_t node, const Fold& fold);

}  // namespace troupe
