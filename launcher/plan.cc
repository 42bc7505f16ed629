#include "launcher/plan.h"

#include <algorithm>
#include <cstdio>

#include "actors/data/corpus.h"
#include "actors/expert_shard.h"
#include "actors/owner.h"
#include "actors/rules/placement.h"
#include "actors/rules/recovery.h"
#include "actors/rules/sum_range.h"
#include "actors/rules/trainable.h"
#include "actors/shadow.h"
#include "actors/stage_memory.h"
#include "kernels/model/layer_views.h"
#include "launcher/config.h"
#include "launcher/distill.h"
#include "launcher/machine.h"
#include "launcher/plan_overhead.h"
#include "launcher/tools.h"
#include "launcher/world.h"

namespace troupe {

namespace {

// Measured on Debian 12: pages of program and libraries and small blocks of the heap; what loader, conductor and
// checkpointer take on the first node; UCX, and each peer; and the kernels' scratch of a compute thread.
constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kProgramBytes = 25 * kMiB, kLeaderBytes = 3 * kMiB, kUcxBytes = 5 * kMiB, kPeerBytes = kMiB / 2;
constexpr std::size_t kThreadBytes = 5 * kMiB / 2;

// In FP8 a thread holds the codes of a scaled product's left operand, 512 rows of it (kernels/cpu/product_scaled.cc), as
// wide floats: as deep as the widest layer or, for a weight's gradient, as a microbatch.
std::size_t codes_bytes(const Config& config) {
  if (!config.is_fp8() || config.device.kind == "cuda") return 0;
  const ModelConfig& m = config.model;
  const int mlp = 2 * std::max({m.intermediate_size, m.shared_intermediate_size(), m.moe_intermediate_size});
  int depth = std::max({m.hidden_size, mlp, config.microbatch_rows()});
  if (config.is_fp8_attention()) {
    const AttentionWidths width = attention_widths(m);
    depth = std::max({depth, width.in, width.q, width.kv, m.num_attention_heads * m.value_head_dim()});
  }
  return std::size_t{512} * static_cast<std::size_t>(depth) * 4;
}

// On a GPU codes stand in its working memory (kernels/cuda/quantize.h), a byte an element and a float for each 128: of rows,
// of the reference policy's matrices, a shard's all together, and of the rows of a layer's weight gradients, which go
// together up to 256 MiB.
std::size_t codes_on_gpu(const Config& config) {
  if (!config.is_fp8() || config.device.kind != "cuda") return 0;
  const ModelConfig& m = config.model;
  const std::int64_t hidden = m.hidden_size;
  std::int64_t most = 0, gradients = 0;
  const auto count = [&](std::int64_t rows, std::int64_t in, std::int64_t out, std::int64_t matrices) {
    const std::int64_t weights = config.has_reference() ? matrices * in * out : 0;  // others have codes
    most = std::max({most, rows * std::max(in, out) + weights, rows * (in + out)});
    gradients += rows * (in + out);
  };
  const std::int64_t rows = config.microbatch_rows();
  if (config.is_fp8_attention()) {
    const AttentionWidths width = attention_widths(m);
    count(rows, hidden, width.in, 1);
    if (m.q_lora_rank) count(rows, *m.q_lora_rank, width.q, 1);
    if (width.kv > 0) count(rows, m.kv_lora_rank, width.kv, 1);
    count(rows, std::int64_t{m.num_attention_heads} * m.value_head_dim(), hidden, 1);
  }
  for (const int inner : {m.intermediate_size, m.shared_intermediate_size()})
    count(rows, hidden, 2 * inner, 1), count(rows, inner, hidden, 1);
  const ExpertRange experts = experts_of(config, 0);
  const std::int64_t chunk = config.layout.chunk_rows_max;
  count(chunk, hidden, 2 * m.moe_intermediate_size, experts.end - experts.begin);
  most = std::max(most, std::min(gradients, std::int64_t{1} << 28));
  return static_cast<std::size_t>(most + most / 32);
}

// A thread's scratch: blocks of products, and one head's keys and values with their gradients, as wide floats.
std::size_t thread_bytes(const Config& config) {
  const ModelConfig& m = config.model;
  const auto length = static_cast<std::size_t>(std::max(config.train.sequence_length, config.generate_length()));
  return kThreadBytes + codes_bytes(config) +
         length * static_cast<std::size_t>(4 * m.qk_head_dim() + 2 * m.value_head_dim()) * 4;
}

// Of NCCL's two communicators with another GPU of the machine (kernels/cuda/peer_copies.cc), at most: four channels of
// 4 MiB each way, and what it takes besides. Not measured yet.
constexpr std::size_t kPeerWaysBytes = 64 * kMiB;
constexpr int kGpusOfMachineMax = 8;

std::size_t peer_ways_bytes(const Config& config) {
  const std::string& way = config.layout.device_transport;
  if (config.device.kind != "cuda" || (way != "auto" && way != "nccl")) return 0;
  return static_cast<std::size_t>(std::min(config.layout.nodes, kGpusOfMachineMax) - 1) * kPeerWaysBytes;
}

bool generates(const Config& config) {
  const bool exact_match = config.data.kind == "arithmetic" && config.evaluate.exact_match_problems > 0;
  return exact_match || config.has_rollouts() || config.has_answers();
}

std::string stage_holds(const Config& config, const StageShape& shape) {
  std::string text = shape.layers == 1
                         ? fmt::format("layer {}", shape.first_layer)
                         : fmt::format("layers {}-{}", shape.first_layer, shape.first_layer + shape.layers - 1);
  if (shape.first) text += ", embedding";
  if (shape.last) text += ", head";
  if (shape.last && config.model.has_mtp()) text += ", MTP";
  return text;
}

std::string shard_holds(const Config& config, const StageShape& shape, const ExpertRange& range) {
  return fmt::format("experts {}-{} of {} layers", range.begin, range.end - 1, moe_layers_of(config, shape).size());
}

void add_shared(ActorPlan& actor, std::size_t bytes) {
  actor.buffers += bytes;
  actor.shared += bytes;
}

// Payloads that only ops read, on their way.
void add_carried(ActorPlan& actor, std::size_t bytes) {
  add_shared(actor, bytes);
  actor.carried += bytes;
}

void add_owner(ActorPlan& actor, const Config& config, const ParameterBlock& block, int lanes, int replicas,
               std::int64_t extra, bool snapshots, Owner::Use use = Owner::Use::computes) {
  const OwnerMemory owner = Owner::memory(config, block, lanes, replicas, extra, use);
  actor.weights = owner.weights + owner.copies + owner.codes + owner.reference;
  actor.moments = owner.moments;
  actor.gradients = owner.gradients;
  std::size_t payloads = owner.shared;
  if (snapshots) payloads += owner.weights + owner.moments + (owner.reference > 0 ? owner.moments / 2 : 0);
  add_shared(actor, payloads);
}

std::size_t table_elements(const Config& config) {
  return static_cast<std::size_t>(config.model.vocab_size) * static_cast<std::size_t>(config.model.hidden_size);
}

// One gradient of the tensors that learn.
std::size_t trained_bytes(const Config& config, const ParameterBlock& block) {
  return static_cast<std::size_t>(ParameterBlock(trainable_of(config, block.parameters())).elements()) * 4;
}

// Payloads of the embedding's size between the stage that owns it and a last stage that uses it too: the gradients of
// those uses; when they are added, its copy.
std::size_t table_payload_bytes(const Config& config, const StageShape& shape) {
  StageShape last = shape;
  last.first = false;
  last.last = true;
  if (shape.first == shape.last || !reads_embedding_copy(config, last)) return 0;
  std::size_t uses = 0;
  for (const SharedUse& use : shared_uses(config, last)) uses += use.parameter == "model.embed_tokens.weight" ? 1 : 0;
  return std::max<std::size_t>(1, uses) * table_elements(config) * 4;
}

// Sums between twins: theirs of the part that this replica adds; its own of the others' parts, whose place what they have
// added takes; and its part, added.
std::size_t twins_payload_bytes(const Config& config, const ParameterBlock& block, std::int64_t extra) {
  const int replicas = config.layout.replicas;
  if (replicas == 1) return 0;
  const auto elements = static_cast<std::int64_t>(trained_bytes(config, block) / 4) + extra;
  return static_cast<std::size_t>((2 * replicas - 1) * part_elements_max(elements, replicas)) * 4;
}

}  // namespace

ActorPlan plan_stage(const Config& config, int replica, const StageShape& shape) {
  ActorPlan actor;
  actor.address = stage_address(config, replica, shape.stage);
  actor.holds = stage_holds(config, shape);
  const std::int64_t extra = shared_elements(shared_uses(config, shape));
  const ParameterBlock block(stage_parameters(config, shape));
  add_owner(actor, config, block, config.train.gradient_lanes / config.layout.replicas, config.layout.replicas, extra,
            replica == 0);
  const SlotBytes slot = slot_bytes(config, shape);
  const auto slots = static_cast<std::size_t>(config.slots()) + static_cast<std::size_t>(config.generate_slots());
  actor.activations = (slot.device + slot.shared) * slots;
  actor.shared += slot.shared * slots;
  if (reads_embedding_copy(config, shape))
    actor.weights += table_elements(config) * (activation_type(config) == Dtype::bf16 ? 6 : 4);
  add_carried(actor, table_payload_bytes(config, shape));
  if (generates(config) && (replica == 0 || config.has_rollouts() || config.has_answers()))
    actor.buffers += cache_bytes(config, shape);
  add_carried(actor, twins_payload_bytes(config, block, extra));
  return actor;
}

ActorPlan plan_shard(const Config& config, const StageShape& shape, int shard) {
  ActorPlan actor;
  actor.address = shard_address(config, shape.stage, shard);
  actor.holds = shard_holds(config, shape, experts_of(config, shard));
  add_owner(actor, config, ParameterBlock(shard_parameters(config, shape, shard)), 1, 1, 0, true);
  const ShardPool pool = shard_pool(config, shape);
  actor.activations = pool.chunk_bytes * static_cast<std::size_t>(pool.in_flight);
  actor.stash = pool.chunk_bytes * static_cast<std::size_t>(pool.stash);
  if (!pool.keeps_rows) return actor;
  // Each chunk's inputs, and the slopes of those that go backward.
  const std::size_t kept = pool.rows_bytes * static_cast<std::size_t>(2 * pool.in_flight + pool.stash);
  actor.buffers += kept;
  if (config.device.kind != "cuda") actor.shared += kept;  // with a GPU they stay in its memory
  return actor;
}

std::size_t process_bytes(const Config& config, std::uint32_t node) {
  const auto peers = static_cast<std::size_t>(config.layout.nodes - 1);
  return kProgramBytes + (node == 0 ? kLeaderBytes : 0) + (peers > 0 ? kUcxBytes + peers * kPeerBytes : 0);
}

std::size_t row_bytes(const Config& config, std::size_t stages) {
  const auto rows = static_cast<std::size_t>(config.microbatch_rows()),
             d = static_cast<std::size_t>(config.model.hidden_size);
  const std::size_t routed = rows * static_cast<std::size_t>(config.model.num_experts_per_tok);
  const std::size_t exchange = config.model.is_mla() ? 2 * routed * d * bytes_of(activation_type(config)) : 0;
  // The residual stream to the next stage, and its gradient back, in float32.
  const std::size_t passed = config.layout.stages > 1 ? 2 * rows * d * 4 : 0;
  const std::size_t slots =
      static_cast<std::size_t>(config.slots()) + static_cast<std::size_t>(config.generate_slots());
  return stages * slots * (exchange + passed);
}

// Four of the largest that rows are gathered or computed in at once, within limits; sums and states pass through in pieces.
std::size_t staging_bytes(const Config& config) {
  if (config.device.kind != "cuda" || config.layout.nodes == 1 || config.device.staged_kib_min == 0) return 0;
  const auto rows = static_cast<std::size_t>(config.microbatch_rows()),
             d = static_cast<std::size_t>(config.model.hidden_size);
  const std::size_t routed = rows * static_cast<std::size_t>(config.model.num_experts_per_tok);
  const std::size_t exchange = config.model.is_mla() ? routed * d * bytes_of(activation_type(config)) : 0;
  const std::size_t passed = config.layout.stages > 1 ? rows * d * 4 : 0;
  return std::clamp(4 * std::max(exchange, passed), 32 * kMiB, 1024 * kMiB) / kMiB * kMiB;
}

namespace {

// A copy of an owner's state, and its gradient as it comes.
ActorPlan plan_shadow(const Config& config, const Address& owner, const Address& shadow) {
  ActorPlan actor;
  actor.address = shadow;
  actor.holds = fmt::format("a copy of {}'s state", to_string(owner));
  const ParameterBlock block(parameters_of(config, owner));
  add_owner(actor, config, block, 1, 1, 0, false, Owner::Use::keeps);
  add_carried(actor, trained_bytes(config, block));
  return actor;
}

// Rollouts with the loader, and being made: tokens, log-probabilities and what each row learns by.
std::size_t rollout_bytes(const Config& config) {
  if (!config.has_rollouts()) return 0;
  const GrpoConfig& g = config.grpo;
  const std::size_t lag = static_cast<std::size_t>(g.rollout_lag),
                    updates = static_cast<std::size_t>(g.updates_per_rollout);
  const std::size_t steps = lag + 2 * updates + 1;
  const std::size_t words = static_cast<std::size_t>(config.kept_words());
  const std::size_t row = 48 + 4 * words;
  return steps * static_cast<std::size_t>(config.train.batch_sequences * config.train.sequence_length) * row;
}

// A request and its answer for every microbatch in flight whose stage or shard lives here.
std::size_t row_bytes(const Config& config, std::uint32_t node, const std::map<Address, std::uint32_t>& places) {
  std::size_t stages = 0, shards = 0;
  for (const auto& [address, place] : places) {
    if (place != node) continue;
    stages += address.role == Role::stage ? 1 : 0;
    shards += address.role == Role::expert_shard ? 1 : 0;
  }
  return troupe::row_bytes(config, std::max(stages, shards > 0 ? std::size_t{1} : std::size_t{0}));
}

// One more of each waits its turn; between processes a copy leaves while another arrives. With a GPU what stays on the
// node is in its memory, and what leaves it there too or in shared memory, as the way is: any of them may.
void add_messages(NodePlan& node, const Config& config, const std::map<Address, std::uint32_t>& places) {
  const std::size_t rows = row_bytes(config, node.node, places);
  const bool apart = config.device.kind == "cuda", several = config.layout.nodes > 1;
  const std::size_t stays = apart ? 2 * rows : 0;
  const std::size_t passes = several ? 4 * rows : apart ? 0 : 2 * rows;
  node.messages = stays + passes + (node.node == 0 ? rollout_bytes(config) : 0);
  node.device += stays;
  if (apart && config.layout.device_transport != "host") node.device += passes;
}

}  // namespace

namespace {

// Twins but the first, and shards of as many experts, take the same memory: one of them is worked out, since to list a
// large model's tensors takes time.
void add_stages(Plan& plan, const Config& config, const StageShape& shape) {
  ActorPlan actor;
  for (int r = 0; r < config.layout.replicas; ++r) {
    if (r < 2) actor = plan_stage(config, r, shape);
    actor.address = stage_address(config, r, shape.stage);
    plan.actors.push_back(actor);
  }
}

void add_shards(Plan& plan, const Config& config, const StageShape& shape) {
  ActorPlan actor;
  int planned = 0;  // experts
  for (int e = 0; e < config.layout.expert_shards; ++e) {
    const ExpertRange range = experts_of(config, e);
    if (range.end - range.begin != planned) actor = plan_shard(config, shape, e);
    planned = range.end - range.begin;
    actor.address = shard_address(config, shape.stage, e);
    actor.holds = shard_holds(config, shape, range);
    plan.actors.push_back(actor);
  }
}

}  // namespace

Plan make_plan(const Config& config, std::size_t corpus_bytes) {
  Plan plan;
  const auto shapes = stage_shapes(config);
  const auto places = place_actors(config);
  for (const StageShape& shape : shapes) {
    add_stages(plan, config, shape);
    if (has_expert_shards(config, shape)) add_shards(plan, config, shape);
  }
  const auto copies = shadows(config);
  for (ActorPlan& a : plan.actors)
    if (copies.contains(a.address))
      add_carried(a, std::min(a.weights, a.moments));  // the gradient on its way to the copy
  for (const auto& [owner, shadow] : copies) plan.actors.push_back(plan_shadow(config, owner, shadow));
  const std::vector<Overhead> overhead = overheads(config, places);
  for (int n = 0; n < config.layout.nodes; ++n) {
    NodePlan node;
    node.node = static_cast<std::uint32_t>(n);
    node.process = process_bytes(config, node.node) + (static_cast<std::size_t>(config.inspect.journal_mib) << 20) +
                   thread_bytes(config) * static_cast<std::size_t>(std::max(1, config.device.threads));
    node.data = n == 0 ? corpus_bytes : 0;
    add_messages(node, config, places);
    node.process += overhead[node.node].total();
    if (config.device.kind == "cuda") node.device += overhead[node.node].pages;
    for (ActorPlan& a : plan.actors) {
      a.node = places.at(a.address);
      if (a.node != node.node) continue;
      node.actors += a.total();
      node.device += a.device();
      if (config.device.kind == "cuda") node.device += a.carried;
    }
    const std::size_t beside = codes_on_gpu(config) + staging_bytes(config) + peer_ways_bytes(config);
    node.process += beside;
    node.device += beside;
    node.process += node.actors / 50;  // large blocks stand on pages of 2 MiB
    plan.nodes.push_back(node);
  }
  return plan;
}

std::string describe(const Config& config, const Plan& plan) {
  const auto mib = [](std::size_t bytes) { return static_cast<double>(bytes) / static_cast<double>(kMiB); };
  std::string text = fmt::format("{}: {:.2f} M parameters, {:.2f} M active a token, {:.1f} MFLOP a trained token\n",
                                 config.name, static_cast<double>(parameter_count(config.model)) * 1e-6,
                                 static_cast<double>(active_parameter_count(config.model)) * 1e-6,
                                 flops_per_trained_token(config) * 1e-6);
  if (config.has_frozen())
    text += fmt::format("trained: {:.2f} M parameters of {}, the rest is frozen\n",
                        static_cast<double>(trained_parameter_count(config)) * 1e-6,
                        config.chooses_experts() ? "any experts, at most (they are chosen when the run begins)"
                                                 : fmt::format("{} experts", config.train.experts.size()));
  text += fmt::format("step: {} sequences x {} tokens in {} microbatches, {} gradient lanes, {}\n\n",
                      config.train.batch_sequences, config.train.sequence_length, config.train.microbatches,
                      config.train.gradient_lanes, config.train.dtype);
  text += fmt::format("{:<5}{:<16}{:<34}{:>9}{:>9}{:>10}{:>12}{:>8}{:>9}{:>9}\n", "node", "actor", "holds", "weights",
                      "moments", "gradients", "activations", "stash", "buffers", "MiB");
  for (const ActorPlan& a : plan.actors) {
    text += fmt::format("{:<5}{:<16}{:<34}{:>9.1f}{:>9.1f}{:>10.1f}{:>12.1f}{:>8.1f}{:>9.1f}{:>9.1f}\n", a.node,
                        to_string(a.address), a.holds, mib(a.weights), mib(a.moments), mib(a.gradients),
                        mib(a.activations), mib(a.stash), mib(a.buffers), mib(a.total()));
  }
  text += "0    loader, conductor, checkpointer, rollout\n\n";
  for (const NodePlan& n : plan.nodes) {
    text += fmt::format("node {}: peak {:.0f} MiB = actors {:.1f} + messages {:.1f} + data {:.1f} + program {:.1f}",
                        n.node, mib(n.total()), mib(n.actors), mib(n.messages), mib(n.data), mib(n.process));
    if (config.device.kind == "cuda") text += fmt::format("; at most {:.0f} MiB of it on the GPU", mib(n.device));
    text += fmt::format("; {} compute threads\n", config.device.threads);
  }
  return text;
}

namespace {

// A student's data is yet to be written, and it is small; whoever only asks reads none.
void show_plan(const Config& phase) {
  Config config = phase.kind == "distill" ? student_of(phase, "traces.jsonl") : phase;
  resolve_machine(config);
  const bool reads = !config.has_rollouts() && config.kind != "distill" && config.kind != "evaluate";
  const std::size_t data = reads ? open_corpus(config)->bytes() : 0;
  std::fputs(describe(config, make_plan(config, data)).c_str(), stdout);
}

}  // namespace

int plan(const PlanOptions& options) {
  if (!options.clusters.empty()) return plan_clusters(options);
  for (const Config& config : load_recipe(options.config_path, options.sets).phases) show_plan(config);
  return 0;
}

}  // namespace troupe
