#include "actors/rules/placement.h"

#include <algorithm>

#include "actors/rules/recovery.h"

namespace troupe {

namespace {

Initialization initialization_of(const Config& config) {
  return {config.train.initialization, config.train.initializer_range};
}

// Relative work of a layer's dense part and of the head, in products per token.
double layer_cost(const Config& config, int layer) {
  const ModelConfig& m = config.model;
  const double attention = 2.0 * m.hidden_size * m.num_attention_heads * (m.qk_head_dim() + m.value_head_dim());
  const int width = m.is_moe_layer(layer)
                        ? m.shared_intermediate_size() + m.num_experts_per_tok * m.moe_intermediate_size
                        : m.intermediate_size;
  return attention + 3.0 * m.hidden_size * width;
}
double head_cost(const Config& config) {
  return static_cast<double>(config.model.hidden_size) * config.model.vocab_size;
}

}  // namespace

std::vector<StageShape> stage_shapes(const Config& config) {
  const int layers = config.model.num_hidden_layers, stages = config.layout.stages;
  double rest = head_cost(config);
  if (config.model.has_mtp()) rest += layer_cost(config, layers) + head_cost(config);
  for (int l = 0; l < layers; ++l) rest += layer_cost(config, l);
  std::vector<StageShape> shapes;
  int next = 0;
  for (int s = 0; s < stages; ++s) {
    StageShape shape{s, next, 0, s == 0, s == stages - 1};
    const double target = rest / (stages - s);
    const int must_leave = stages - s - 1;
    double cost = 0;
    while (next < layers - must_leave &&
           (shape.last || shape.layers == 0 || cost + layer_cost(config, next) / 2 <= target)) {
      cost += layer_cost(config, next++);
      ++shape.layers;
    }
    rest -= cost;
    shapes.push_back(shape);
  }
  return shapes;
}

std::vector<int> moe_layers_of(const Config& config, const StageShape& shape) {
  std::vector<int> layers;
  for (int l = shape.first_layer; l < shape.first_layer + shape.layers; ++l)
    if (config.model.is_moe_layer(l)) layers.push_back(l);
  const int mtp = config.model.num_hidden_layers;
  if (shape.last && config.model.has_mtp() && config.model.is_moe_layer(mtp)) layers.push_back(mtp);
  return layers;
}

ExpertRange experts_of(const Config& config, int shard) {
  const int experts = config.model.n_routed_experts, shards = config.layout.expert_shards;
  return {experts * shard / shards, experts * (shard + 1) / shards};
}

std::vector<Parameter> stage_parameters(const Config& config, const StageShape& shape) {
  std::vector<Parameter> own;
  const int mtp = config.model.num_hidden_layers;
  const auto wanted = [&](int layer) {
    return (layer >= shape.first_layer && layer < shape.first_layer + shape.layers) || layer == mtp;
  };
  for (Parameter& p : model_parameters(config.model, initialization_of(config), wanted)) {
    if (p.kind == ParameterKind::expert) continue;
    const bool in_run = p.layer >= shape.first_layer && p.layer < shape.first_layer + shape.layers;
    const bool outside = p.layer < 0 ? (p.name == "model.embed_tokens.weight" ? shape.first : shape.last) : false;
    if (in_run || outside || (shape.last && p.layer == mtp)) own.push_back(std::move(p));
  }
  return own;
}

std::vector<Parameter> shard_parameters(const Config& config, const StageShape& shape, int shard) {
  const std::vector<int> layers = moe_layers_of(config, shape);
  const ExpertRange range = experts_of(config, shard);
  std::vector<Parameter> own;
  const auto wanted = [&](int layer) { return std::find(layers.begin(), layers.end(), layer) != layers.end(); };
  for (Parameter& p : model_parameters(config.model, initialization_of(config), wanted)) {
    if (p.kind == ParameterKind::expert && p.expert >= range.begin && p.expert < range.end) own.push_back(std::move(p));
  }
  return own;
}

bool has_expert_shards(const Config& config, const StageShape& shape) { return !moe_layers_of(config, shape).empty(); }

Address stage_address(const Config& config, int replica, int stage) {
  return {Role::stage, static_cast<std::uint32_t>(replica * config.layout.stages + stage)};
}
Address shard_address(const Config& config, int stage, int shard) {
  return {Role::expert_shard, static_cast<std::uint32_t>(stage * config.layout.expert_shards + shard)};
}

std::map<Address, std::uint32_t> place_owners(const Config& config) {
  std::map<Address, std::uint32_t> places;
  const LayoutConfig& l = config.layout;
  const auto nodes = static_cast<std::uint32_t>(l.nodes);
  // Stage actors in (stage, replica) order share the nodes evenly; so do the shards, starting from the other end, so
  // that a node with a stage too many has a shard too few.
  const int stage_actors = l.stages * l.replicas;
  for (int s = 0; s < l.stages; ++s)
    for (int r = 0; r < l.replicas; ++r)
      places[stage_address(config, r, s)] =
          static_cast<std::uint32_t>((s * l.replicas + r) * l.nodes / std::max(stage_actors, l.nodes));
  const auto shapes = stage_shapes(config);
  std::vector<Address> shards;
  for (int s = 0; s < l.stages; ++s)
    if (has_expert_shards(config, shapes[static_cast<std::size_t>(s)]))
      for (int e = 0; e < l.expert_shards; ++e) shards.push_back(shard_address(config, s, e));
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const auto turn = static_cast<std::uint32_t>(
        l.shards_in_blocks ? i * nodes / std::max<std::size_t>(shards.size(), nodes) : i % nodes);
    places[shards[i]] = nodes - 1 - turn;
  }
  return places;
}

// A shadow lives on the node after its owner's.
std::map<Address, std::uint32_t> place_actors(const Config& config) {
  std::map<Address, std::uint32_t> places = place_owners(config);
  for (const auto& [owner, shadow] : shadows(config))
    places[shadow] = (places.at(owner) + 1) % static_cast<std::uint32_t>(config.layout.nodes);
  places[{Role::conductor, 0}] = 0;
  for (const Address& leader : leaders(config)) places[leader] = 0;
  for (const Address& rollout : rollouts(config))
    places[rollout] = places.at(stage_address(config, static_cast<int>(rollout.index), 0));
  return places;
}

std::vector<Address> actors_on(const std::map<Address, std::uint32_t>& places, std::uint32_t node) {
  std::vector<Address> here;
  for (const auto& [address, place] : places)
    if (place == node) here.push_back(address);
  return here;
}

std::vector<Address> rollouts(const Config& config) {
  std::vector<Address> all{{Role::rollout, 0}};
  if (config.has_rollouts() || config.has_answers())
    for (int r = 1; r < config.layout.replicas; ++r) all.push_back({Role::rollout, static_cast<std::uint32_t>(r)});
  return all;
}

std::vector<Address> leaders(const Config& config) {
  std::vector<Address> all{{Role::loader, 0}, {Role::checkpointer, 0}};
  for (const Address& rollout : rollouts(config)) all.push_back(rollout);
  if (config.has_rollouts() || config.has_answers())
    for (const Role role : {Role::rollout_buffer, Role::judge}) all.push_back({role, 0});
  return all;
}

std::vector<Address> owners(const Config& config) {
  std::vector<Address> all;
  const auto shapes = stage_shapes(config);
  for (int r = 0; r < config.layout.replicas; ++r)
    for (int s = 0; s < config.layout.stages; ++s) all.push_back(stage_address(config, r, s));
  for (int s = 0; s < config.layout.stages; ++s)
    if (has_expert_shards(config, shapes[static_cast<std::size_t>(s)]))
      for (int e = 0; e < config.layout.expert_shards; ++e) all.push_back(shard_address(config, s, e));
  return all;
}

std::vector<Address> snapshot_owners(const Config& config) {
  std::vector<Address> some;
  for (const Address& a : owners(config))
    if (a.role == Role::expert_shard || a.index < static_cast<std::uint32_t>(config.layout.stages)) some.push_back(a);
  return some;
}

}  // namespace troupe
