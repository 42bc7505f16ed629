#include "launcher/simulation/scenario.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "actors/rules/dispatch.h"
#include "actors/rules/trainable.h"
#include "kernels/base/error.h"
#include "kernels/base/random.h"
#include "launcher/config.h"

namespace troupe {

namespace {

constexpr std::uint64_t kNumbers = 16;  // different models and schedules
constexpr int kAnswersMax = 4;          // written by a person's model at the end: each takes many messages

// One draw after the other for one purpose.
class Dice {
 public:
  Dice(std::uint64_t seed, std::string_view purpose) : key_(random_key(seed, purpose)) {}
  std::uint64_t below(std::uint64_t bound) { return random_below(bound, key_, next_++); }
  bool one_in(std::uint64_t count) { return below(count) == 0; }
  bool happens(double chance) { return random_uniform(key_, next_++) < chance; }
  double from(const Range& range) { return range.from > 0 ? scale(range.from, range.to) : range.from; }
  // Dice of their own for a part: what is drawn for one leaves the others as they are.
  Dice of_part(std::string_view name) const { return {key_, name}; }
  template <typename T>
  T of(std::initializer_list<T> some) {
    return *(some.begin() + below(some.size()));
  }
  int between(int low, int high) { return low + static_cast<int>(below(static_cast<std::uint64_t>(high - low) + 1)); }
  // Evenly on a logarithmic scale: small values are as likely as large ones.
  double scale(double low, double high) { return low * std::exp(random_uniform(key_, next_++) * std::log(high / low)); }

 private:
  std::uint64_t key_, next_ = 0;
};

void draw_model(ModelConfig& m, Dice dice) {
  const bool sparse = !dice.one_in(8);
  m.model_type = sparse ? "deepseek_v3" : dice.of({"qwen2", "llama"});
  m.vocab_size = dice.of({16, 40, 64});
  m.hidden_size = dice.of({8, 16});
  m.intermediate_size = dice.of({8, 24});
  m.num_hidden_layers = dice.between(2, 3);
  m.num_attention_heads = 2;
  m.num_key_value_heads = dice.between(1, 2);
  m.tie_word_embeddings = dice.one_in(3);
  m.max_position_embeddings = 64;
  m.q_lora_rank = dice.one_in(2) ? std::optional<int>(8) : std::nullopt;
  m.kv_lora_rank = 8;
  m.qk_nope_head_dim = m.v_head_dim = 4;
  m.qk_rope_head_dim = dice.of({2, 4});
  m.moe_intermediate_size = dice.of({4, 8});
  m.n_routed_experts = dice.between(2, 5);
  m.n_shared_experts = dice.between(0, 1);
  m.num_experts_per_tok = dice.between(1, 2);
  m.first_k_dense_replace = dice.between(0, 1);
  m.norm_topk_prob = !dice.one_in(4);
  m.aux_loss_alpha = dice.one_in(2) ? 0.01 : 0;
  m.num_nextn_predict_layers = sparse && dice.one_in(3) ? 1 : 0;
}

// Some of the experts learn, and nothing else.
void draw_frozen(Config& c, Dice dice) {
  const ModelConfig& m = c.model;
  if (!m.is_moe_layer(m.layers_with_mtp() - 1) || !dice.one_in(3)) return;
  c.train.trainable = "experts";
  std::set<std::string> names;
  for (int i = dice.between(1, 4); i > 0; --i)
    names.insert(expert_name(dice.between(m.first_k_dense_replace, m.layers_with_mtp() - 1),
                             dice.between(0, m.n_routed_experts - 1)));
  c.train.experts.assign(names.begin(), names.end());
}

void draw_training(Config& c, Dice dice) {
  TrainConfig& t = c.train;
  t.steps = dice.between(3, 5);
  t.seed = dice.below(1000);
  t.gradient_lanes = dice.of({1, 2, 4});
  t.microbatches = t.gradient_lanes * (t.gradient_lanes == 4 ? 1 : dice.between(1, 2));
  t.batch_sequences = t.microbatches * dice.between(1, 3);
  t.sequence_length = dice.between(4, 8);
  t.dtype = dice.one_in(3) ? "bfloat16" : "float32";
  t.clip_norm = dice.of({0.0, 0.5});
  t.warmup_steps = 1;
  c.data.kind = "none";
  c.evaluate.exact_match_problems = 0;
  c.data.mask_documents = dice.one_in(2);
  if (t.dtype == "bfloat16" && dice.one_in(2)) t.dtype = "fp8";
  if (t.dtype == "fp8") t.fp8_attention = dice.one_in(2);
}

// Reinforcement with the same numbers: a few prompts of a task, short answers.
void draw_reinforcement(Config& c, Dice dice) {
  c.kind = "grpo";
  c.model.vocab_size = 128;  // tasks are written in ASCII
  c.model.num_nextn_predict_layers = 0;
  c.task.names = {dice.of({"reverse", "sort"})};
  c.task.level_min = 1;
  c.task.level_max = dice.between(1, 2);
  GrpoConfig& g = c.grpo;
  g.group_size = dice.of({1, 2, 4});
  c.train.batch_sequences = c.train.microbatches * g.group_size * dice.between(1, 2);
  c.train.sequence_length = 8;
  g.completion_max = dice.between(1, 3);
  g.rollout_lag = dice.of({0, 0, 1, 2, 3});
  g.updates_per_rollout = dice.between(1, 2);
  g.temperature = dice.of({1.0, 0.7});
  g.top_p = dice.of({1.0, 1.0, 0.9});
  g.dual_clip = dice.of({0.0, 3.0});
  g.beta = dice.of({0.0, 0.0, 0.1});
  if (g.beta > 0) g.reference_every = dice.between(0, 2);
  g.reduction = dice.of({"sequence_mean", "token_mean", "constant"});
  g.dynamic_sampling = dice.one_in(3);
  g.sampling_rounds_max = 2;
  g.overlong_tokens = dice.between(0, 1);
  c.evaluate.problems = dice.between(0, 2);
  c.evaluate.samples = 1;
  c.judge.retries_max = 50;  // simulated judges die and hang often
}

void draw_layout(Config& c, Dice dice) {
  LayoutConfig& l = c.layout;
  l.nodes = dice.between(1, 4);
  l.replicas = dice.of({1, 1, 2, 4});
  l.stages = dice.between(1, 3);
  l.expert_shards = dice.between(1, 4);
  l.slots = dice.of({0, 1, 1, 2});
  l.chunk_rows_max = dice.of({16, 16, 64});
  l.chunk_credits = dice.of({1, 1, 2});
  l.stash_factor = dice.of({0.0, 0.5, 1.5});
  c.train.recompute = dice.one_in(3);
  c.evaluate.every_steps = dice.between(0, 2);
  c.checkpoint.every_steps = dice.between(0, 2);
  c.checkpoint.keep_last = dice.between(1, 2);
  c.device.threads = dice.between(1, 4);
  c.recovery.copies = dice.one_in(4) ? 0 : 1;
  c.generate.sequences_max = dice.between(1, 9);
  l.sums_elements_max = dice.of_part("sums").of({256, 2048, l.sums_elements_max});
  if (c.is_fp8()) l.chunk_rows_max = static_cast<int>(rows_together(c));
}

std::vector<LinkCut> draw_cuts(Dice dice, const NetworkFaults& faults, int nodes) {
  std::vector<LinkCut> cuts;
  if (!dice.happens(faults.partition.chance) || nodes < 2) return cuts;
  const auto from = static_cast<std::uint32_t>(dice.below(static_cast<std::uint64_t>(nodes)));
  const auto to = (from + 1) % static_cast<std::uint32_t>(nodes);
  const auto begin_us = static_cast<std::int64_t>(dice.scale(100, 100'000));
  const std::int64_t end_us = begin_us + static_cast<std::int64_t>(dice.from(faults.partition.size));
  cuts.push_back({from, to, begin_us, end_us});
  if (!dice.happens(faults.one_way)) cuts.push_back({to, from, begin_us, end_us});
  return cuts;
}

// How hard the fault strikes this world; 0: not at all.
double draw_fault(Dice dice, const Fault& fault) { return dice.happens(fault.chance) ? dice.from(fault.size) : 0; }

void draw_network(SimWorldOptions& world, Dice dice, const NetworkFaults& faults, int nodes) {
  SimNetworkOptions& n = world.network;
  n.seed = dice.below(1ULL << 62);
  n.latency_us = static_cast<std::int64_t>(dice.from(faults.latency_us));
  n.bytes_per_us = dice.from(faults.bytes_per_us);
  n.small_bytes_max = dice.of<std::size_t>({256, 1024, 8192});
  n.reorder_us = static_cast<std::int64_t>(dice.scale(10, 20'000));
  n.jitter_us =
      static_cast<std::int64_t>(draw_fault(dice.of_part("jitter"), faults.jitter) * static_cast<double>(n.latency_us));
  n.drop = draw_fault(dice.of_part("drop"), faults.drop);
  n.duplicate = draw_fault(dice.of_part("duplicate"), faults.duplicate);
  n.reorder = draw_fault(dice.of_part("reorder"), faults.reorder);
  n.corrupt = draw_fault(dice.of_part("corrupt"), faults.corrupt);
  n.cuts = draw_cuts(dice.of_part("cuts"), faults, nodes);
  world.link.reliable_transport = false;
  world.link.payload_checksum = true;
}

void draw_devices(Scenario& s, Dice dice, const Faults& faults) {
  const double rate = dice.scale(20, 20'000);
  const ComputeAt compute_at = dice.of({ComputeAt::start, ComputeAt::end});
  for (int node = 0; node < s.config.layout.nodes; ++node) {
    SimDeviceOptions d;
    d.servers = s.config.device.threads;
    d.flops_per_us = d.bytes_per_us = rate;
    d.numbers = s.numbers;
    d.compute_at = compute_at;
    d.seed = random_key(s.config.train.seed, "made-up routing");
    Dice own = dice.of_part(fmt::format("slow {}", node));
    if (own.happens(faults.nodes.slow.chance)) {
      const auto begin_us = static_cast<std::int64_t>(own.scale(100, 100'000));
      const auto lasts_us = static_cast<std::int64_t>(own.scale(1'000, 1'000'000));
      d.slow.push_back({begin_us, begin_us + lasts_us, own.from(faults.nodes.slow.size)});
    }
    s.world.devices.push_back(d);
  }
  // A disk slower than the run leaves no checkpoint to come back to.
  const double slow_us = draw_fault(dice.of_part("slow disk"), faults.disk.slow);
  s.world.disk.job_us = static_cast<std::int64_t>(slow_us > 0 ? slow_us : dice.scale(1, 100));
  s.world.disk.bytes_per_us = dice.scale(1, 1'000);
}

void draw_jury(SimJuryOptions& jury, Dice dice) {
  jury.seed = dice.below(1ULL << 62);
  jury.processes = dice.between(1, 4);
  jury.delay_us_min = static_cast<std::int64_t>(dice.scale(1, 1'000));
  jury.delay_us_max = jury.delay_us_min * dice.between(1, 50);
  jury.death_chance = dice.of({0.0, 0.0, 0.1, 0.3});
  jury.hang_chance = dice.of({0.0, 0.0, 0.1, 0.3});
}

// Half of the losses come at a moment that matters: about a decision, a vote, a restoring under way.
void draw_losses(Scenario& s, Dice dice, const Faults& faults) {
  const int count = dice.between(static_cast<int>(faults.nodes.losses.from), static_cast<int>(faults.nodes.losses.to));
  for (int i = 0; i < count; ++i) {
    Dice own = dice.of_part(fmt::format("loss {}", i));
    NodeLoss loss;
    loss.after_messages = static_cast<std::uint64_t>(own.scale(10, 3'000));
    if (own.one_in(2)) {
      loss.kind = own.of({"Decision", "Decision", "Vote", "Restore", "Restored", "Fetch", "SnapshotPart",
                          "ShadowGradient", "Standing"});
      loss.after_messages = static_cast<std::uint64_t>(own.scale(1, 40));
    }
    if (s.config.has_rollouts() && own.one_in(2)) {
      loss.kind =
          own.of({"StartRollout", "SamplePrompts", "Generated", "Sampled", "Judged", "RolloutDone", "WeightsDigest"});
      loss.after_messages = static_cast<std::uint64_t>(own.scale(1, 60));
    }
    loss.node = static_cast<std::uint32_t>(own.below(static_cast<std::uint64_t>(s.config.layout.nodes)));
    // At once: what was under way when the node died still is when everybody begins again.
    const Range back = faults.nodes.back_after_us;
    loss.back_after_us = static_cast<std::int64_t>(
        own.from(own.one_in(2) ? Range{back.from, std::clamp(1'000.0, back.from, back.to)} : back));
    loss.abandoned = own.happens(faults.nodes.zombie);
    s.losses.push_back(loss);
  }
  s.world.disk.crash_at_primitive =
      static_cast<std::uint64_t>(draw_fault(dice.of_part("disk falls"), faults.disk.fall));
}

bool possible(const Config& config) {
  try {
    check_config(config);
  } catch (const Error&) {
    return false;
  }
  return true;
}

}  // namespace

namespace {

Config draw_numbers(std::uint64_t seed, bool rollouts) {
  const std::uint64_t numbers = random_key(seed % kNumbers, "simulated numbers");
  Config config;
  for (std::uint64_t draw = 0; draw == 0 || !possible(config); ++draw) {
    config = {};
    draw_model(config.model, Dice(numbers, fmt::format("model {}", draw)));
    draw_training(config, Dice(numbers, fmt::format("training {}", draw)));
    if (rollouts) draw_reinforcement(config, Dice(numbers, fmt::format("reinforcement {}", draw)));
    draw_frozen(config, Dice(numbers, fmt::format("frozen {}", draw)));
  }
  return config;
}

// Layout and faults for these numbers.
void draw_surroundings(Scenario& s, const Config& numbers, std::uint64_t seed, const ScenarioOptions& options) {
  s.seed = s.world.seed = seed;
  for (std::uint64_t draw = 0; draw == 0 || !possible(s.config); ++draw) {
    s.config = numbers;
    draw_layout(s.config, Dice(seed, fmt::format("layout {}", draw)));
  }
  if (!options.base && !options.sets.empty())
    s.config = config_from_text(config_to_toml(s.config), "drawn configuration", options.sets);
  if (!s.numbers) {  // weights that nobody computes with needn't be drawn
    s.config.train.initialization = "normal";
    s.config.train.initializer_range = 0;
  }
  draw_network(s.world, Dice(seed, "network"), options.faults.network, s.config.layout.nodes);
  draw_devices(s, Dice(seed, "devices"), options.faults);
  draw_jury(s.world.jury, Dice(seed, "jury"));
}

}  // namespace

Scenario draw_scenario(std::uint64_t seed, const ScenarioOptions& options) {
  Config numbers = options.base ? *options.base : draw_numbers(seed, options.rollouts);
  numbers.evaluate.exact_match_problems = std::min(numbers.evaluate.exact_match_problems, kAnswersMax);
  Scenario s;
  s.numbers = numbers.has_rollouts() || !Dice(seed, "numbers").one_in(3);
  draw_surroundings(s, numbers, seed, options);
  if (options.losses) draw_losses(s, Dice(seed, "losses"), options.faults);
  Dice fate(seed, "fate");
  s.world.disk.written_max =
      static_cast<std::size_t>(draw_fault(fate.of_part("disk is full"), options.faults.disk.full));
  if (numbers.has_rollouts()) s.world.disk.written_max = 0;  // no version is followed before its rollouts are written
  if (fate.happens(options.faults.nodes.whole_run)) {
    Scenario sequel;
    sequel.numbers = s.numbers;
    draw_surroundings(sequel, numbers, random_key(seed, "sequel"), options);
    s.world.disk.written_max = 0;
    s.falls_after_messages = static_cast<std::uint64_t>(fate.scale(300, 6'000));
    s.sequel = std::make_shared<const Scenario>(std::move(sequel));
  }
  return s;
}

std::string describe(const Scenario& s) {
  const LayoutConfig& l = s.config.layout;
  const SimNetworkOptions& n = s.world.network;
  std::string text = fmt::format(
      "{} {} nodes {} replicas {} stages {} shards {} slots {} chunk {} credits {} stash {} copies {}{}{} | latency {} "
      "us jitter "
      "{}",
      s.numbers ? "numbers" : "skeleton", s.config.train.dtype, l.nodes, l.replicas, l.stages, l.expert_shards,
      s.config.slots(), l.chunk_rows_max, l.chunk_credits, l.stash_factor, s.config.recovery.copies,
      s.config.train.recompute ? " recompute" : "", s.config.has_frozen() ? " frozen" : "", n.latency_us, n.jitter_us);
  const auto percent = [&](const char* name, double value) {
    if (value > 0) text += fmt::format(" {} {:.1f}%", name, value * 100);
  };
  percent("drop", n.drop);
  percent("duplicate", n.duplicate);
  percent("reorder", n.reorder);
  percent("corrupt", n.corrupt);
  if (!n.cuts.empty()) text += fmt::format(" cuts {}", n.cuts.size());
  const auto slow = std::count_if(s.world.devices.begin(), s.world.devices.end(),
                                  [](const SimDeviceOptions& d) { return !d.slow.empty(); });
  if (slow > 0) text += fmt::format(" slow nodes {}", slow);
  for (const NodeLoss& loss : s.losses)
    text +=
        fmt::format(" {} node {} at message {}", loss.abandoned ? "abandon" : "kill", loss.node, loss.after_messages);
  const SimDiskOptions& disk = s.world.disk;
  if (disk.crash_at_primitive > 0) text += fmt::format(" disk falls at primitive {}", disk.crash_at_primitive);
  if (disk.written_max > 0) text += fmt::format(" disk full at {} bytes", disk.written_max);
  if (s.sequel) text += fmt::format(" falls at message {}, then {}", s.falls_after_messages, describe(*s.sequel));
  return text;
}

}  // namespace troupe
