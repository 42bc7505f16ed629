#include "launcher/forecast/fit.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "launcher/forecast/step.h"

namespace troupe {

namespace {

double gbytes(std::size_t bytes) { return static_cast<double>(bytes) * 1e-9; }

// Stages of the same layers, with and without embedding and head, take the same memory: one of each kind is planned.
std::vector<StageShape> kinds_of_stages(const Config& config) {
  std::map<std::tuple<int, std::size_t, bool, bool>, StageShape> kinds;
  for (const StageShape& shape : stage_shapes(config))
    kinds.try_emplace({shape.layers, moe_layers_of(config, shape).size(), shape.first, shape.last}, shape);
  std::vector<StageShape> shapes;
  for (const auto& [kind, shape] : kinds) shapes.push_back(shape);
  return shapes;
}

void take_larger(ActorPlan& most, const ActorPlan& actor) {
  if (actor.device() > most.device() || (actor.device() == most.device() && actor.shared > most.shared)) most = actor;
}

std::vector<Contribution> contributions(const ActorPlan& actor, int count) {
  const std::string name = to_string(actor.address);
  std::vector<Contribution> all;
  for (const auto& [what, bytes] : {std::pair{"weights", actor.weights},
                                    {"moments", actor.moments},
                                    {"gradients", actor.gradients},
                                    {"activations", actor.activations},
                                    {"stash", actor.stash},
                                    {"buffers", actor.buffers}})
    all.push_back({fmt::format("{}: {}", name, what), gbytes(bytes) * count});
  return all;
}

std::string advice_for(const std::string& what) {
  const bool stage = what.starts_with("stage");
  if (what.ends_with("activations"))
    return stage ? "take more layout.stages, fewer layout.slots, more train.microbatches, or train.recompute = true"
                 : "take a smaller layout.chunk_rows_max, fewer layout.chunk_credits or fewer layout.replicas";
  if (what.ends_with("stash")) return "take a smaller layout.stash_factor, or more layout.expert_shards";
  if (what.ends_with("buffers")) return stage ? "take more layout.stages" : "take more layout.expert_shards";
  if (stage && what.ends_with("gradients"))
    return "take fewer train.gradient_lanes or more layout.replicas (each keeps a sum for every lane of its own), or "
           "more "
           "layout.stages";
  return stage ? "take more layout.stages" : "take more layout.expert_shards or more layout.stages";
}

}  // namespace

LayoutMemory memory_of(const Config& config, int devices) {
  LayoutMemory memory;
  for (const StageShape& shape : kinds_of_stages(config)) {
    take_larger(memory.stage, plan_stage(config, 0, shape));
    if (has_expert_shards(config, shape)) take_larger(memory.shard, plan_shard(config, shape, 0));
  }
  const Load load = load_of(config, devices);
  const auto fullest = [&](double stage, double shard) {
    stage *= load.stages;
    shard *= load.shards;
    return load.together ? stage + shard : std::max(stage, shard);
  };
  const std::size_t messages =
      config.layout.nodes > 1 ? 4 * row_bytes(config, static_cast<std::size_t>(load.stages)) : 0;
  memory.device_gbytes = fullest(gbytes(memory.stage.device()), gbytes(memory.shard.device()));
  memory.host_gbytes = fullest(gbytes(memory.stage.shared), gbytes(memory.shard.shared)) + gbytes(messages);
  // A copy of a state stands on the next node, where its gradient comes too.
  if (config.recovery.copies > 0 && config.layout.nodes > 1) {
    const ActorPlan& copied = config.layout.replicas > 1 ? memory.shard : memory.stage;
    memory.device_gbytes += gbytes(copied.weights + copied.moments);
    memory.host_gbytes += gbytes(copied.weights);
  }
  memory.parts = contributions(memory.stage, load.stages);
  if (memory.shard.total() > 0)
    for (Contribution& one : contributions(memory.shard, load.shards)) memory.parts.push_back(std::move(one));
  std::sort(memory.parts.begin(), memory.parts.end(),
            [](const Contribution& a, const Contribution& b) { return a.gbytes > b.gbytes; });
  return memory;
}

Fit fit_of(LayoutMemory memory, const HardwareConfig& hardware) {
  Fit fit;
  fit.memory = std::move(memory);
  if (hardware.host_gbytes == 0) fit.memory.device_gbytes += std::exchange(fit.memory.host_gbytes, 0);
  const double device = fit.memory.device_gbytes / hardware.memory_gbytes;
  const double host = hardware.host_gbytes > 0 ? fit.memory.host_gbytes / hardware.host_gbytes : 0;
  fit.filled = std::max(device, host);
  if (fit.fits()) return fit;
  // Buffers are payloads, which lie in the host's memory where it is another.
  const bool apart = hardware.host_gbytes > 0;
  const auto counts = [&](const Contribution& one) {
    return !apart || one.what.ends_with("buffers") == (host > device);
  };
  const auto largest = std::find_if(fit.memory.parts.begin(), fit.memory.parts.end(), counts);
  fit.advice = advice_for(largest->what);
  return fit;
}

const LayoutMemory& MemoryBook::of(const Config& config, int devices) {
  const LayoutConfig& l = config.layout;
  const std::tuple key{devices, l.replicas, l.stages, l.expert_shards};
  const auto found = known_.find(key);
  return found != known_.end() ? found->second : known_.emplace(key, memory_of(config, devices)).first->second;
}

}  // namespace troupe
