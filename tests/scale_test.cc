// Steps on clusters that aren't there: devices without numbers and memory, and a few replicas that stand for all.
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "actors/rules/placement.h"
#include "kernels/base/log.h"
#include "kernels/sim/expert_load.h"
#include "kernels/sim/unread_memory.h"
#include "launcher/config.h"
#include "launcher/simulation/agenda.h"
#include "launcher/simulation/step_world.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

// V3's widths, few layers: 4 replicas x 2 stages x 4 shards on 8 GPUs, in machines of `devices_per_machine`.
Config small_cluster() {
  return config_from_text(R"(
name = "small"
[model]
model_type = "deepseek_v3"
vocab_size = 16384
hidden_size = 7168
intermediate_size = 18432
moe_intermediate_size = 2048
num_hidden_layers = 4
first_k_dense_replace = 1
num_attention_heads = 128
q_lora_rank = 1536
kv_lora_rank = 512
qk_nope_head_dim = 128
qk_rope_head_dim = 64
v_head_dim = 128
n_routed_experts = 32
num_experts_per_tok = 8
[train]
batch_sequences = 64
sequence_length = 4096
microbatches = 64
gradient_lanes = 4
dtype = "bfloat16"
[data]
kind = "none"
[layout]
nodes = 8
replicas = 4
stages = 2
expert_shards = 4
chunk_rows_max = 16384
[hardware]
name = "h800"
bfloat16_gflops = 500000.0
memory_gbytes_per_second = 3350.0
product_share = 1
memory_share = 1
devices_per_machine = 2
inside_gbytes_per_second = 160.0
inside_latency_us = 3
between_gbytes_per_second = 40.0
between_latency_us = 4
)",
                          "small cluster", {});
}

// Error lines alone: a world tells how it begins.
struct Quiet {
  Quiet() { start_log("scale", "", LogLevel::error); }
};

StepFigures step_of(const Config& config, int replicas, const ExpertLoad& load) {
  const Quiet quiet;
  return simulate_step({.config = config, .replicas_simulated = replicas, .load = load});
}

}  // namespace

TEST_CASE("half of the replicas stand for all: a step lasts as long, and every device works as long", "[scale]") {
  Config config = small_cluster();
  // What the devices do is in proportion. Where the wires are the bottleneck, frames queue at half as many ports: which
  // of them waits for which is another order.
  const auto [gbytes, tolerance] = GENERATE(std::pair(1000.0, 0.02), std::pair(200.0, 0.02), std::pair(40.0, 0.03));
  config.hardware.between_gbytes_per_second = gbytes;
  ExpertLoad even;
  even.luck = false;
  const StepFigures whole = step_of(config, 4, even), half = step_of(config, 2, even);
  INFO("network " << gbytes << " GB/s, whole " << to_text(whole) << "half " << to_text(half));
  CHECK(half.world.layout.nodes == whole.world.layout.nodes / 2);
  CHECK(half.messages < whole.messages);
  CHECK(std::abs(half.seconds / whole.seconds - 1) < tolerance);
  const double worked = whole.device_seconds.at("useful") / 8, stands_for = half.device_seconds.at("useful") / 4;
  CHECK(std::abs(stands_for / worked - 1) < 0.001);
}

TEST_CASE("what twins exchange takes as long in any fold", "[scale]") {
  Config config = small_cluster();  // with so few microbatches that the exchange is most of the step
  config.train.batch_sequences = config.train.microbatches = config.train.gradient_lanes = 16;
  config.layout.nodes = config.layout.replicas = config.layout.expert_shards = 16;
  config.layout.stages = 1;
  ExpertLoad even;
  even.luck = false;
  // The second round, which all begin at once.
  const auto exchanged_in = [&](int simulated) {
    const StepFigures step = step_of(config, simulated, even);
    return step.kinds.at("ReducedSums").last_s - step.kinds.at("PartialSums").last_s;
  };
  const double whole = exchanged_in(16);
  for (const int simulated : {2, 4, 8}) {
    const double part = exchanged_in(simulated);
    INFO(simulated << " of 16: " << part << " s, all: " << whole << " s");
    CHECK(std::abs(part / whole - 1) < 0.03);
  }
}

TEST_CASE("the same step twice is the same step", "[scale]") {
  const StepFigures one = step_of(small_cluster(), 2, {}), other = step_of(small_cluster(), 2, {});
  CHECK(one.seconds == other.seconds);
  CHECK(one.messages == other.messages);
}

TEST_CASE("the bins of a step's bill sum to devices x time", "[scale]") {
  const StepFigures step = step_of(small_cluster(), 2, {});
  double sum = 0;
  for (const auto& [bin, seconds] : step.device_seconds) sum += seconds;
  CHECK(std::abs(sum / (step.seconds * step.world.layout.nodes) - 1) < 0.001);
}

TEST_CASE("what a loss costs is the wait for a replacement, its state's way over the network, and what is done again",
          "[scale]") {
  const Quiet quiet;
  const auto losses_at = [&](double gbytes, double start_seconds) {
    Config config = small_cluster();
    config.hardware.between_gbytes_per_second = gbytes;
    config.limits.silence_ms = 2000;
    return simulate_step({.config = config, .lose = 2, .start_seconds = start_seconds});
  };
  const StepFigures step = losses_at(40, 30);
  INFO(to_text(step));
  REQUIRE(step.losses.size() == 2);
  for (const LossFigures& loss : step.losses) {
    CHECK(loss.version == 0);
    CHECK(loss.parts > 0);
    CHECK(loss.lost_s == Approx(step.decided_s / 2).epsilon(0.01));
    CHECK(loss.back_s == Approx(loss.lost_s + 32).epsilon(0.001));
    // Then the step is a step as ever.
    CHECK(loss.seconds - loss.ready_s == Approx(step.seconds).epsilon(0.02));
  }
  CHECK(step.losses[0].node != step.losses[1].node);
  // Node 4 has a quarter of the 32 experts of two layers, 12 bytes for each of their 3 x 7,168 x 2,048 elements, and the
  // rest of the stage, which its twins have, some of them on its own host.
  const double experts_s = 2 * 8 * 3 * 7168.0 * 2048 * 12 / 40e9;
  const double quick_s = step.losses[1].ready_s - step.losses[1].back_s;
  const StepFigures slow = losses_at(4, 0);
  const double slow_s = slow.losses[1].ready_s - slow.losses[1].back_s;
  INFO(quick_s << " s and " << slow_s << " s");
  CHECK(step.losses[1].node == 4);
  CHECK(quick_s > experts_s);
  CHECK(quick_s < 2 * experts_s);
  CHECK(slow_s / quick_s > 6);
  CHECK(slow_s / quick_s < 11);
}

TEST_CASE("a node is not lost where nothing could bring it back, or where it stands for several", "[scale]") {
  const Quiet quiet;
  Config config = small_cluster();
  CHECK_THROWS_WITH(simulate_step({.config = config, .replicas_simulated = 2, .lose = 1}),
                    Catch::Contains("--lose needs all replicas simulated"));
  CHECK_THROWS_WITH(simulate_step({.config = config, .lose = 9}), Catch::Contains("there are 8 nodes to lose"));
  config.recovery.copies = 0;
  CHECK_THROWS_WITH(simulate_step({.config = config, .lose = 1}), Catch::Contains("states with copies"));
}

TEST_CASE("a step of a model of a hundred gigabytes needs no memory for its tensors", "[scale]") {
  rusage before{}, after{};
  ::getrusage(RUSAGE_SELF, &before);
  step_of(small_cluster(), 2, {});
  ::getrusage(RUSAGE_SELF, &after);
  CHECK(after.ru_maxrss - before.ru_maxrss < 500'000);  // KiB
}

TEST_CASE("a fold that the layout has no room for is refused in a sentence", "[scale]") {
  CHECK_THROWS_WITH(folded(small_cluster(), {4, 3}), "3 simulated replicas must divide layout.replicas (4)");
  CHECK_THROWS_WITH(folded(small_cluster(), {4, 1}),
                    "one simulated replica has no twin to exchange sums with: simulate 2 of 4 at least");
}

TEST_CASE("made-up counts sum to the rows, follow the shares and are the same again", "[scale]") {
  std::vector<std::int32_t> counts(64), again(64);
  Router op;
  op.x = {unread_memory(0), 4096, 128, 128, Dtype::bf16};
  op.indices = {unread_memory(0), 4096, 8, 8, Dtype::i32};
  op.counts = {counts.data(), 1, 64, 64, Dtype::i32};
  ExpertLoad load;
  for (int e = 1; e <= 64; ++e) load.shares.push_back(1.0 / std::sqrt(e));
  load.shuffled = false;
  make_up_counts(op, load, 3, 7);
  CHECK(std::accumulate(counts.begin(), counts.end(), 0) == 4096 * 8);
  CHECK(counts[0] > 2 * counts[15]);
  op.counts.data = again.data();
  make_up_counts(op, load, 3, 7);
  CHECK(counts == again);
  make_up_counts(op, load, 3, 8);
  CHECK(counts != again);
}

TEST_CASE("an agenda finds who is due, from any place on, and when the next one is", "[scale]") {
  for (const std::size_t members : {1, 2, 5, 8, 13}) {
    Agenda agenda;
    agenda.resize(members);
    std::vector<std::int64_t> times(members, Agenda::kNever);
    for (int change = 0; change < 200; ++change) {
      const std::size_t who = static_cast<std::size_t>(change * 7 + change / 3) % members;
      times[who] = change % 5 == 0 ? Agenda::kNever : (change * 31) % 97;
      agenda.set(who, times[who]);
      CHECK(agenda.next_us() == *std::min_element(times.begin(), times.end()));
      for (std::size_t from = 0; from <= members; ++from) {
        std::size_t first = from;
        while (first < members && times[first] > 40) ++first;
        const std::size_t found = agenda.due(from, 40);
        CHECK((found == first || (first == members && found >= members)));
      }
    }
  }
}

// What a message and an actor cost, with tensors that have bytes and without.
TEST_CASE("a message's and an actor's cost at 16, 64 and 256 owners", "[.][bench]") {
  for (const auto& [stages, replicas] : {std::pair(2, 4), std::pair(4, 8), std::pair(8, 16)}) {
    Config config = small_cluster();
    config.model.hidden_size = 256;
    config.model.intermediate_size = config.model.moe_intermediate_size = 64;
    config.model.num_attention_heads = 4;
    config.model.q_lora_rank = config.model.kv_lora_rank = 64;
    config.model.vocab_size = 1024;
    config.model.num_hidden_layers = 16;
    config.model.n_routed_experts = 64;
    config.train.sequence_length = 32;
    config.train.microbatches = config.train.batch_sequences = 16 * replicas;
    config.train.gradient_lanes = config.layout.replicas = config.layout.expert_shards = replicas;
    config.layout.stages = stages;
    config.layout.nodes = stages * replicas;
    config.layout.chunk_rows_max = 32;
    for (const bool memory : {false, true}) {
      if (memory && stages == 8) continue;  // 15 GB
      const StepFigures f = simulate_step({.config = config, .memory = memory});
      std::printf("%d owners, %s: %.2f us a message, peak %.2f GB, set up %.2f s, simulated %.2f s\n",
                  2 * stages * replicas, memory ? "bytes" : "no bytes",
                  f.simulated_s * 1e6 / static_cast<double>(f.messages), static_cast<double>(f.peak_bytes) * 1e-9,
                  f.set_up_s, f.simulated_s);
    }
  }
}
