#include "launcher/forecast/step.h"

#include <algorithm>
#include <cmath>

#include "actors/rules/placement.h"
#include "kernels/ready_heap.h"

namespace troupe {

namespace {

struct StageSeconds {
  PassSeconds forward, backward, weights;
  PassSeconds all() const {
    PassSeconds sum = forward;
    sum += backward;
    return sum += weights;
  }
};

StageSeconds passes(const PartWork& work, double tokens, double read, double summed, const Rates& rates) {
  return {forward_pass(work, tokens, read, rates), backward_pass(work, tokens, read, rates),
          weights_pass(work, tokens, summed, rates)};
}

PartWork dense_of(const ModelWork& work, const StageShape& shape) {
  PartWork sum;
  if (shape.first) sum += work.embedding;
  for (int l = shape.first_layer; l < shape.first_layer + shape.layers; ++l)
    sum += work.layers[static_cast<std::size_t>(l)].dense;
  if (!shape.last) return sum;
  sum += work.head;
  for (std::size_t l = static_cast<std::size_t>(shape.first_layer) + static_cast<std::size_t>(shape.layers);
       l < work.layers.size(); ++l)
    sum += work.layers[l].dense;
  return sum;
}

PartWork experts_of_stage(const Config& config, const ModelWork& work, const StageShape& shape) {
  PartWork sum;
  for (const int layer : moe_layers_of(config, shape)) sum += work.layers[static_cast<std::size_t>(layer)].experts;
  return sum;
}

PartWork part_of(const PartWork& work, double share) {
  PartWork part = work;
  part.product_flops *= share;
  part.crossings *= share;
  part.elements *= share;
  return part;
}

// Weight gradients that wait run together until they are worth something: their sums cross the memory once for so many
// microbatches. A shard's do so for every four experts of a layer.
double together(const Config& config, double segment_flops) {
  const double worth = std::ceil(ReadyHeap::kTogetherFlops / std::max(1.0, segment_flops));
  return std::clamp(worth, 1.0, static_cast<double>(std::min(ReadyHeap::kTogether, config.slots())));
}
double dense_together(const Config& config, const PartWork& stage, const StageShape& shape) {
  return together(config, stage.product_flops * config.microbatch_rows() / shape.layers);
}
double experts_together(const Config& config, const PartWork& stage) {
  if (stage.moe_layers == 0) return 1;
  const double strands = std::max(1.0, config.model.n_routed_experts / 4.0);
  return together(config, stage.product_flops * config.microbatch_rows() / stage.moe_layers / strands);
}

// The busiest stage of the layout, and what its microbatch needs.
struct Busiest {
  PartWork dense, experts;          // experts: of one shard
  StageSeconds stage, shard;        // of one microbatch
  double sent = 0, shard_sent = 0;  // bytes to shards, or back from one, by one microbatch, forward and backward
};

Busiest busiest(const Config& config, const Cluster& cluster, const ModelWork& work) {
  const Rates rates = rates_of(cluster.hardware, config.train.dtype);
  const double tokens = config.microbatch_rows(), shards = config.layout.expert_shards;
  const double row = static_cast<double>(config.model.hidden_size) * rates.element_bytes;
  Busiest most;
  for (const StageShape& shape : stage_shapes(config)) {
    const PartWork dense = dense_of(work, shape), all = experts_of_stage(config, work, shape);
    const PartWork experts = part_of(all, 1 / shards);
    const double sums = dense.elements / dense_together(config, dense, shape);
    const double expert_sums = experts.elements / experts_together(config, all);
    const StageSeconds stage = passes(dense, tokens, dense.elements, sums, rates);
    const StageSeconds shard = passes(experts, tokens, experts.elements, expert_sums, rates);
    if (stage.all().total() > most.stage.all().total()) {
      most.stage = stage;
      most.dense = dense;
      most.sent = 2 * tokens * config.model.num_experts_per_tok * all.moe_layers * row;
    }
    if (shard.all().total() > most.shard.all().total()) {
      most.shard = shard;
      most.experts = experts;
      most.shard_sent = 2 * tokens * config.model.num_experts_per_tok * all.moe_layers * row / shards;
    }
  }
  return most;
}

// Bytes that the busiest device sends in a step: rows to experts and back, the residual stream.
double sent_bytes(const Config& config, const Busiest& most, const Load& load) {
  const double own = static_cast<double>(config.train.microbatches) / config.layout.replicas;
  const double passed = config.layout.stages > 1 ? 4.0 * config.microbatch_rows() * config.model.hidden_size : 0;
  const double stage = load.stages * own * (most.sent + passed);
  const double shard = load.shards * static_cast<double>(config.train.microbatches) * most.shard_sent;
  return load.together ? stage + shard : std::max(stage, shard);
}

// From a microbatch's arrival at the first stage until its slot there is free again.
double round_trip(const Config& config, const Cluster& cluster, const Busiest& most) {
  const double rows = static_cast<double>(config.microbatch_rows());
  const double passed = cluster.message_seconds(4 * rows * config.model.hidden_size);
  const double latency = cluster.message_seconds(0);
  const double exchange = 2 * cluster.spread_seconds(most.sent) + 4 * latency * std::max(1.0, most.dense.moe_layers);
  const double one = most.stage.all().total() + most.shard.all().total() + exchange;
  return config.layout.stages * one + 2 * (config.layout.stages - 1) * passed;
}

// Moments, masters and gradients read, all but gradients written, sums emptied, a rounded copy: 34 bytes an element.
double optimizer_seconds(const Busiest& most, const Load& load, const Rates& rates) {
  const double stage = load.stages * most.dense.elements, shard = load.shards * most.experts.elements;
  return 34 * (load.together ? stage + shard : std::max(stage, shard)) / rates.memory_bytes;
}

}  // namespace

Load load_of(const Config& config, int devices) {
  int with_experts = 0;
  for (const StageShape& shape : stage_shapes(config)) with_experts += has_expert_shards(config, shape) ? 1 : 0;
  const int stages = config.layout.replicas * config.layout.stages;
  const int shards = with_experts * config.layout.expert_shards;
  const auto fullest = [&](int actors) { return (actors + devices - 1) / devices; };
  return {fullest(stages), fullest(shards), stages + shards > devices};
}

StepBins step_bins(const Config& config, const Cluster& cluster, const ModelWork& work) {
  const LayoutConfig& l = config.layout;
  const Busiest most = busiest(config, cluster, work);
  const Load load = load_of(config, cluster.devices);
  const double own = static_cast<double>(config.train.microbatches) / l.replicas;
  const PassSeconds stage = load.stages * own * most.stage.all();
  const PassSeconds shard = static_cast<double>(load.shards) * config.train.microbatches * most.shard.all();
  PassSeconds busy = stage.total() >= shard.total() ? stage : shard;
  if (load.together) (busy = stage) += shard;

  StepBins bins;
  bins.products = busy.products;
  bins.traffic = busy.traffic;
  const double links = cluster.spread_seconds(sent_bytes(config, most, load));
  const double by_slots = own * round_trip(config, cluster, most) / config.slots();
  bins.links = std::max({0.0, links - busy.total(), by_slots - busy.total()});
  // Every twin sends each other a part of its sums, and then the part that it has added (actors/stage_commit.cc).
  bins.links += cluster.spread_seconds(2 * 4 * most.dense.elements * load.stages * (l.replicas - 1) / l.replicas);
  // Weight gradients fill half of it: (stages - 1)(F + B - 2W), table 2 of DeepSeek-V3, B whole.
  const auto both = [&](PassSeconds StageSeconds::*pass) {
    return (most.stage.*pass).total() + (most.shard.*pass).total();
  };
  const double gap = both(&StageSeconds::forward) + both(&StageSeconds::backward) - both(&StageSeconds::weights);
  bins.bubble = (l.stages - 1) * std::max(0.0, gap);
  bins.optimizer = optimizer_seconds(most, load, rates_of(cluster.hardware, config.train.dtype));
  return bins;
}

double step_seconds(const Config& config, const Cluster& cluster) {
  return step_bins(config, cluster, work_of(config.model, config.train.sequence_length, config.train.fp8_attention))
      .total();
}

}  // namespace troupe
