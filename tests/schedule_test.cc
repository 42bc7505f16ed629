// The schedule that emerges from messages, credits and priority(), in virtual time, beside the schedules that others
// plan: a company of p equal stages with one compute thread each, m microbatches, where a forward, a backward and a
// weight gradient of a microbatch take one unit each and communication takes next to none.
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <variant>

#include "actors/rules/placement.h"
#include "kernels/cost.h"
#include "launcher/simulation/sim_corpus.h"
#include "launcher/simulation/sim_world.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

constexpr std::int64_t kUnitUs = 100'000;
// Parts of a unit in which a server takes up what its neighbours end at the same time, and what follows from it: the
// formulas that this is compared with know no before and after within a moment.
constexpr std::int64_t kRestUs = 2'000, kSmallRestUs = 5, kWakeUs = 1'000;

Config pipeline(int stages, int microbatches, int slots) {
  Config c;
  ModelConfig& m = c.model;
  m.model_type = "deepseek_v3";
  m.vocab_size = 16;
  m.hidden_size = m.intermediate_size = 8;
  m.num_hidden_layers = m.first_k_dense_replace = stages;
  m.num_attention_heads = m.num_key_value_heads = 2;
  m.max_position_embeddings = 64;
  m.kv_lora_rank = 8;
  m.qk_nope_head_dim = m.v_head_dim = 4;
  m.qk_rope_head_dim = 2;
  m.moe_intermediate_size = 4;
  m.n_routed_experts = 2;
  m.n_shared_experts = 1;
  m.num_experts_per_tok = 1;
  c.train.steps = 1;
  c.train.gradient_lanes = 1;
  c.train.microbatches = c.train.batch_sequences = microbatches;
  c.train.sequence_length = 8;
  c.data.kind = "none";
  c.evaluate.exact_match_problems = 0;
  c.evaluate.every_steps = 0;
  c.checkpoint.every_steps = 0;
  c.recovery.copies = 0;
  c.layout.nodes = c.layout.stages = stages;
  c.layout.slots = slots;
  c.device.threads = 1;
  return c;
}

template <typename T>
bool has(const Segment& segment) {
  return std::any_of(segment.ops.begin(), segment.ops.end(),
                     [](const Op& op) { return std::holds_alternative<T>(op); });
}

// A layer's forward, backward and weight gradients: one unit. Embedding, head, update: nothing.
bool is_unit(const Segment& segment) {
  switch (segment.key.segment_class) {
    case SegmentClass::forward:
      return has<Attention>(segment);
    case SegmentClass::backward:
      return has<AttentionBackward>(segment);
    case SegmentClass::weight_gradient:
      return segment.ops.size() > 4;
    default:
      return false;
  }
}

struct Schedule {
  std::int64_t units = 0;
  double bubble = 0;  // units from the first forward to the last weight gradient, less the 3 m of a stage
  int peak = 0;       // microbatches of a stage between the beginning of the forward and the end of the weight gradient
};

Schedule schedule_of(int stages, int microbatches, int slots) {
  const Config config = pipeline(stages, microbatches, slots);
  const std::string folder = fmt::format("/dev/shm/troupe-schedule-test-{}", ::getpid());
  std::filesystem::create_directories(folder + "/checkpoints");
  SimWorldOptions options;
  options.run_folder = folder;
  options.corpus = make_sim_corpus(config);
  options.network.latency_us = 1;
  options.network.bytes_per_us = 1e9;
  options.devices.resize(static_cast<std::size_t>(stages));
  Schedule schedule;
  const SimWorld* running = nullptr;
  std::int64_t begin_us = -1, end_us = 0;
  for (SimDeviceOptions& device : options.devices) {
    device.numbers = false;
    device.together = 1;  // a unit is not cut: two at once would keep what is more urgent waiting
    device.wakes_us = kWakeUs;
    device.rests_us = [](const Segment& segment) -> std::int64_t { return is_unit(segment) ? kRestUs : kSmallRestUs; };
    device.lasts_us = [&, held = 0, weights = false](const Segment& segment) mutable -> std::int64_t {
      if (!is_unit(segment)) return 1;
      held += (segment.key.segment_class == SegmentClass::forward ? 1 : 0) - (weights ? 1 : 0);
      weights = segment.key.segment_class == SegmentClass::weight_gradient;  // ended when the next unit begins
      schedule.peak = std::max(schedule.peak, held);
      ++schedule.units;
      if (begin_us < 0) begin_us = running->now_us();
      end_us = std::max(end_us, running->now_us() + kUnitUs);
      return kUnitUs - kRestUs;
    };
  }
  SimWorld world(config, options);
  running = &world;
  world.start({});
  CHECK(world.run_until([&] { return world.finished() || !world.problem().empty(); }, 1'000'000'000'000));
  CHECK(world.problem() == "");
  std::filesystem::remove_all(folder);
  schedule.bubble = static_cast<double>(end_us - begin_us) / kUnitUs - 3.0 * microbatches;
  return schedule;
}

// Two replicas on two nodes, each with half of the experts: half of all routed rows cross the link, there and back.
Config mixture(int microbatches, int slots) {
  Config c = pipeline(1, microbatches, slots);
  ModelConfig& m = c.model;
  m.hidden_size = 32;
  m.moe_intermediate_size = 32;
  m.num_hidden_layers = 4;
  m.first_k_dense_replace = 0;
  m.n_routed_experts = 8;
  m.num_experts_per_tok = 2;
  c.train.sequence_length = 32;
  c.train.gradient_lanes = 2;
  c.layout.nodes = c.layout.replicas = c.layout.expert_shards = 2;
  c.layout.chunk_rows_max = 64;
  return c;
}

struct Exchange {
  double step_us = 0, compute_us = 0, bytes = 0;  // of the busier node; bytes: routed rows that it sends the other
};

Exchange exchange_of(const Config& config, double bytes_per_us) {
  const std::string folder = fmt::format("/dev/shm/troupe-schedule-test-{}", ::getpid());
  std::filesystem::create_directories(folder + "/checkpoints");
  SimWorldOptions options;
  options.run_folder = folder;
  options.corpus = make_sim_corpus(config);
  options.network.latency_us = 1;
  options.network.bytes_per_us = bytes_per_us;
  options.devices.resize(2);
  std::array<Exchange, 2> nodes;
  for (std::size_t node = 0; node < 2; ++node) {
    SimDeviceOptions& device = options.devices[node];
    device.numbers = false;
    device.lasts_us = [&spent = nodes[node].compute_us](const Segment& segment) {
      const auto us = std::max<std::int64_t>(1, static_cast<std::int64_t>(cost(segment).flops / 1000));
      spent += static_cast<double>(us);
      return us;
    };
  }
  const SimWorld* running = nullptr;
  const auto places = place_actors(config);
  SimWorld world(config, options, [&](std::int64_t, std::uint32_t node, const Envelope& envelope) {
    const std::uint32_t from = places.contains(envelope.from) ? places.at(envelope.from) : node;
    if (from == node) return;
    if (const auto* batch = std::get_if<ExpertBatch>(&envelope.message))
      nodes[from].bytes += static_cast<double>(batch->hidden.size);
    if (const auto* result = std::get_if<ExpertResult>(&envelope.message))
      nodes[from].bytes += static_cast<double>(result->hidden.size);
  });
  running = &world;
  world.start({});
  CHECK(world.run_until([&] { return world.finished() || !world.problem().empty(); }, 1'000'000'000'000));
  CHECK(world.problem() == "");
  std::filesystem::remove_all(folder);
  const Exchange& busier = nodes[0].bytes > nodes[1].bytes ? nodes[0] : nodes[1];
  return {static_cast<double>(running->now_us()), busier.compute_us, busier.bytes};
}

}  // namespace

TEST_CASE("the emergent schedule has the bubble of zero-bubble pipelines in the memory of one-forward-one-backward",
          "[sim][schedule]") {
  for (const int p : {4, 8, 16})
    for (const int m : {2 * p, 64}) {
      INFO(p << " stages, " << m << " microbatches");
      for (const int held : {p, p + 3, p + p / 2}) CHECK(schedule_of(p, m, held).bubble < p - 1 + 0.5);
    }
}

TEST_CASE("bubbles of the emergent schedule", "[.][bench]") {
  fmt::print("{:>3} {:>4} {:>5} {:>8} {:>5} | {:>5} {:>5} {:>8}\n", "p", "m", "held", "bubble", "peak", "1F1B", "ZB1P",
             "DualPipe");
  for (const int p : {4, 8, 16})
    for (const int m : {8, 16, 32, 64})
      for (const int held : {p, p + 3, p + p / 2, 2 * p}) {
        if (m < p) continue;
        const Schedule schedule = schedule_of(p, m, held);
        CHECK(schedule.units == 3 * p * m);
        fmt::print("{:>3} {:>4} {:>5} {:>8.2f} {:>5} | {:>5} {:>5} {:>8}\n", p, m, held, schedule.bubble, schedule.peak,
                   3 * (p - 1), p - 1, p - 2);
      }
}

TEST_CASE("share of expert dispatch that is exposed", "[.][bench]") {
  fmt::print("dispatch takes half of the time that compute takes\n{:>4} {:>6} {:>12} {:>12} {:>9}\n", "m", "held",
             "free, us", "paid, us", "exposed");
  for (const auto& [microbatches, held] :
       std::vector<std::pair<int, int>>{{128, 1}, {128, 2}, {128, 4}, {128, 8}, {32, 2}, {32, 4}, {32, 8}}) {
    const Config config = mixture(microbatches, held);
    const Exchange free = exchange_of(config, 1e9);
    const double paid_us = 0.5 * free.compute_us;
    const Exchange paid = exchange_of(config, free.bytes / paid_us);
    fmt::print("{:>4} {:>6} {:>12.0f} {:>12.0f} {:>8.1f}%  (compute {:.0f} us, {:.0f} bytes)\n", microbatches, held,
               free.step_us, paid.step_us, 100 * (paid.step_us - free.step_us) / paid_us, free.compute_us, free.bytes);
  }
}
