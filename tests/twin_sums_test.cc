// Twins add their sums by parts: who adds what, in which order, and that a step survives whatever falls between the two
// rounds.
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <map>
#include <memory>
#include <set>

#include "actors/owner.h"
#include "actors/rules/placement.h"
#include "actors/twin_sums.h"
#include "actors/twin_tree.h"
#include "kernels/base/random.h"
#include "kernels/cpu/kernels.h"
#include "launcher/simulation/scenario.h"
#include "launcher/simulation/sim_corpus.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

constexpr std::int64_t kElements = 37;

// Numbers of many sizes: a sum in another order has other bits.
float number(std::size_t replica, std::int64_t element) {
  const double uniform = random_uniform(3 + replica, static_cast<std::uint64_t>(element));
  return static_cast<float>((uniform - 0.5) * std::exp2(static_cast<double>((replica * 7 + element) % 24)));
}

// The tree over lanes as the laws have it: lane g with g + L/2, then + L/4, and so on.
std::vector<float> folded_lanes(std::size_t replicas) {
  std::vector<std::vector<float>> lanes(replicas);
  for (std::size_t r = 0; r < replicas; ++r)
    for (std::int64_t i = 0; i < kElements; ++i) lanes[r].push_back(number(r, i));
  for (std::size_t stride = replicas / 2; stride >= 1; stride /= 2)
    for (std::size_t r = 0; r < stride; ++r)
      for (std::size_t i = 0; i < kElements; ++i) lanes[r][i] += lanes[r + stride][i];
  return lanes[0];
}

Tensor row(std::vector<float>& values) { return {values.data(), 1, kElements, kElements, Dtype::f32}; }

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
    return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y);
  });
}

// Worlds in which a stage has twins on other nodes, with numbers.
std::vector<Scenario> worlds_of_twins(std::size_t count, const std::vector<std::string>& sets) {
  std::vector<Scenario> worlds;
  for (std::uint64_t seed = 1; worlds.size() < count; ++seed) {
    Scenario world = draw_scenario(seed, {.base = {}, .losses = false, .faults = {}, .sets = sets});
    if (world.config.layout.replicas > 1 && world.config.layout.nodes > 1 && world.numbers)
      worlds.push_back(std::move(world));
  }
  return worlds;
}

// Four twins on four nodes of a dense model with short microbatches: what a node holds beside its state are sums.
Config four_twins() {
  Config config;
  config.model.model_type = "llama";
  config.model.vocab_size = 512;
  config.model.hidden_size = 64;
  config.model.intermediate_size = 128;
  config.model.num_hidden_layers = 2;
  config.model.num_attention_heads = config.model.num_key_value_heads = 2;
  config.model.max_position_embeddings = 16;
  config.train.steps = 8;
  config.train.batch_sequences = config.train.microbatches = config.train.gradient_lanes = 4;
  config.train.sequence_length = 4;
  config.train.warmup_steps = 1;
  config.data.kind = "none";
  config.evaluate.every_steps = config.evaluate.exact_match_problems = config.checkpoint.every_steps = 0;
  config.layout.nodes = config.layout.replicas = 4;
  config.layout.slots = 1;
  config.layout.sums_elements_max = 4096;
  config.device.threads = 1;
  return config;
}

std::int64_t steps_of(const SimWorld& world) {
  return std::count_if(world.reports().begin(), world.reports().end(),
                       [](const Report& report) { return report.kind == "step"; });
}

}  // namespace

TEST_CASE("parts of the sums cover every element once, in order, as evenly as blocks allow", "[twins]") {
  for (const int replicas : {2, 4, 8, 128})
    for (const std::int64_t elements : {0, 1, 15, 16, 17, 40, 1000, 4096, 100'003})
      for (const std::int64_t most : {1, 16, 100, 1 << 20}) {
        INFO(replicas << " replicas, " << elements << " elements, " << most << " in a message");
        std::int64_t next = 0, smallest = elements;
        for (int r = 0; r < replicas; ++r) {
          const SumRange part = part_of_sums(elements, replicas, r);
          CHECK(part.begin == next);
          CHECK((part.begin % kSumBlock == 0 || part.begin == elements));
          CHECK(part.count <= part_elements_max(elements, replicas));
          smallest = std::min(smallest, part.count);
          std::int64_t begin = next;
          for (const SumRange& range : cut_sums(part, most)) {
            CHECK(range.begin == begin);
            CHECK((range.count > 0 && range.count <= std::max(most, kSumBlock)));
            begin += range.count;
          }
          next += part.count;
          CHECK(begin == next);
        }
        CHECK(next == elements);
        CHECK(part_elements_max(elements, replicas) - smallest <= 2 * kSumBlock);
      }
}

TEST_CASE("whoever of 2 to 128 replicas adds a part, it has the bits of the tree over lanes", "[twins]") {
  for (std::size_t replicas = 2; replicas <= 128; replicas *= 2) {
    const std::vector<float> expected = folded_lanes(replicas);
    for (std::size_t own = 0; own < replicas; ++own) {
      std::vector<std::vector<float>> values(replicas), inner(tree_arenas(replicas), std::vector<float>(kElements, 7));
      std::vector<Tensor> terms, arenas;
      for (std::size_t r = 0; r < replicas; ++r)
        for (std::int64_t i = 0; i < kElements; ++i) values[r].push_back(number(r, i));
      const auto sent = values;
      for (auto& one : values) terms.push_back(row(one));
      for (auto& one : inner) arenas.push_back(row(one));
      cpu::Scratch scratch;
      for (const Op& op : add_in_tree(terms, own, arenas)) cpu::run(op, scratch);
      INFO(replicas << " replicas, added by " << own);
      CHECK(same_bits(values[own], expected));
      for (std::size_t r = 0; r < replicas; ++r) CHECK((r == own || same_bits(values[r], sent[r])));
    }
  }
}

TEST_CASE("at every turn each replica sends its sums to another twin than all others, its neighbour first", "[twins]") {
  Config config;
  config.layout.replicas = 8;
  std::vector<std::vector<int>> orders;
  for (int r = 0; r < 8; ++r) orders.push_back(TwinSums(config, r, 1000).twins());
  for (std::size_t turn = 0; turn < 7; ++turn) {
    std::set<int> to;
    for (const auto& order : orders) to.insert(order[turn]);
    CHECK(to.size() == 8);
  }
  for (int r = 0; r < 8; ++r) CHECK(orders[static_cast<std::size_t>(r)].front() == (r ^ 1));
}

TEST_CASE("a replica has a part when all of its messages are there, and a twin may be a step ahead", "[twins]") {
  Config config;
  config.layout.replicas = 2;
  config.layout.sums_elements_max = 16;
  TwinSums sums(config, 1, 64);
  PayloadPool pool;
  REQUIRE(sums.ranges(1).size() == 2);
  const auto partial = [&](std::int64_t step, std::int64_t begin) {
    sums.take(PartialSums{step, 1, 0, pool.take(64), begin}, step);
  };
  partial(5, 32), partial(6, 32), partial(6, 48);
  CHECK(!sums.has_partial(5, 0));
  CHECK(sums.has_partial(6, 0));
  partial(5, 48);
  CHECK(sums.has_partial(5, 0));
  sums.forget_partial(5);
  CHECK(!sums.has_partial(5, 0));
  CHECK(sums.has_partial(6, 0));
  sums.take(ReducedSums{5, 1, 16, pool.take(64)});
  CHECK(!sums.has_reduced(0));
  sums.take(ReducedSums{5, 1, 0, pool.take(64)});
  CHECK(sums.has_reduced(0));
}

TEST_CASE("a node lost between, in and after the two rounds of the twins' sums costs a step and no bit",
          "[twins][sim]") {
  Simulator simulator(fmt::format("/dev/shm/troupe-twins-test-{}", ::getpid()));
  int lost = 0;
  for (const auto& copies : {"recovery.copies=0", "recovery.copies=1"})
    for (const Scenario& world : worlds_of_twins(6, {copies, "layout.sums_elements_max=256"}))
      for (const std::string kind : {"PartialSums", "ReducedSums", "Vote"})
        for (std::uint64_t n = 1; n <= 40; n = n * 3 / 2 + 1) {
          Scenario scenario = world;
          const auto nodes = static_cast<std::uint64_t>(world.config.layout.nodes);
          scenario.losses = {{kind, n, static_cast<std::uint32_t>(n % nodes), 1'000, false}};
          const WorldResult result = simulator.run(scenario);
          INFO(describe(scenario));
          CHECK(result.broken == "");
          lost += result.losses;
        }
  CHECK(lost > 100);
}

// Bytes of twins' sums that have come to a node and that it still holds: the most at one time.
class Received {
 public:
  void see(std::uint32_t node, const Message& message) {
    const auto* partial = std::get_if<PartialSums>(&message);
    const auto* reduced = std::get_if<ReducedSums>(&message);
    if (partial == nullptr && reduced == nullptr) return;
    const Payload& sums = partial != nullptr ? partial->sums : reduced->sums;
    auto& held = held_[node];
    std::erase_if(held, [](const auto& one) { return one.first.expired(); });
    held.emplace_back(sums.data, sums.size);
    std::size_t bytes = 0;
    for (const auto& [data, size] : held) bytes += size;
    most_[node] = std::max(most_[node], bytes);
  }
  std::size_t most(std::uint32_t node) const { return most_.at(node); }

 private:
  std::map<std::uint32_t, std::vector<std::pair<std::weak_ptr<std::byte>, std::size_t>>> held_;
  std::map<std::uint32_t, std::size_t> most_;
};

TEST_CASE("a replica of four holds six parts of twins' sums at most, and four of its own on their way",
          "[twins][sim]") {
  const Config config = four_twins();
  const auto sum =
      4 * static_cast<std::size_t>(ParameterBlock(stage_parameters(config, stage_shapes(config)[0])).elements());
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SimWorldOptions options;
    options.run_folder = "/nonexistent";
    options.corpus = make_sim_corpus(config);
    options.devices.resize(4);
    for (SimDeviceOptions& device : options.devices) device.numbers = false;
    options.devices[seed % 4].slow = {{0, 1'000'000'000, 20}};
    options.link.reliable_transport = false;
    options.network.drop = seed % 2 == 0 ? 0 : 0.02;
    options.network.seed = seed;
    options.network.bytes_per_us = 100;
    Received received;
    SimWorld world(config, options, [&](std::int64_t, std::uint32_t node, const Envelope& envelope) {
      received.see(node, envelope.message);
    });
    std::int64_t steps = 0;
    world.start({});
    world.run_until([&] { return !world.problem().empty() || (steps = steps_of(world)) == 6; }, 100'000'000);
    REQUIRE(steps == 6);
    for (std::uint32_t node = 1; node < 4; ++node) {
      INFO("seed " << seed << " node " << node << ": " << received.most(node) << " bytes of " << sum);
      CHECK(received.most(node) <= 6 * (sum / 4 + 64));
      CHECK(received.most(node) >= 3 * (sum / 4 - 64));
      CHECK(world.bytes_peak().at(node).shared <= sum + 8192);
    }
  }
}
