// The pure rules: who lives where, which rows go to whom, what a step's votes decide, how fast to learn, and the order
// in which a channel's items leave.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <set>

#include "actors/ordered_sender.h"
#include "actors/rules/decision.h"
#include "actors/rules/dispatch.h"
#include "actors/rules/learning_rate.h"
#include "actors/rules/placement.h"
#include "actors/rules/recovery.h"
#include "kernels/base/random.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

Config laid_out(int replicas, int stages, int shards, int nodes) {
  Config config;  // four layers, the first one dense; eight experts
  config.train.microbatches = config.train.gradient_lanes = 4;
  config.layout.replicas = replicas;
  config.layout.stages = stages;
  config.layout.expert_shards = shards;
  config.layout.nodes = nodes;
  return config;
}

// From everything in one place to everything apart.
void for_each_layout(const std::function<void(const Config&)>& look) {
  for (const int replicas : {1, 2, 4})
    for (const int stages : {1, 2, 3, 4})
      for (const int shards : {1, 2, 3, 8})
        for (const int nodes : {1, 2, 3, 5})
          for (const int mtp : {0, 1}) {
            Config config = laid_out(replicas, stages, shards, nodes);
            config.model.num_nextn_predict_layers = mtp;
            if (nodes > static_cast<int>(owners(config).size())) continue;
            INFO("replicas " << replicas << " stages " << stages << " shards " << shards << " nodes " << nodes
                             << " mtp " << mtp);
            look(config);
          }
}

template <typename Key>
std::pair<int, int> fewest_and_most(const std::map<Key, int>& counts) {
  std::pair<int, int> range{std::numeric_limits<int>::max(), 0};
  for (const auto& [key, count] : counts) {
    range.first = std::min(range.first, count);
    range.second = std::max(range.second, count);
  }
  return range;
}

}  // namespace

// ---- Placement ------------------------------------------------------------------------------------------------------

TEST_CASE("stages take every layer once, in order, and each has one", "[rules]") {
  for_each_layout([](const Config& config) {
    const auto shapes = stage_shapes(config);
    REQUIRE(shapes.size() == static_cast<std::size_t>(config.layout.stages));
    int next = 0;
    for (const StageShape& shape : shapes) {
      CHECK(shape.first_layer == next);
      CHECK(shape.layers >= 1);
      CHECK(shape.first == (shape.stage == 0));
      CHECK(shape.last == (shape.stage == config.layout.stages - 1));
      next += shape.layers;
    }
    CHECK(next == config.model.num_hidden_layers);
  });
}

TEST_CASE("equal layers are cut evenly, and a heavy head costs the last stage layers", "[rules]") {
  Config config = laid_out(1, 3, 1, 1);
  config.model.num_hidden_layers = 12;
  config.model.first_k_dense_replace = 0;
  for (const StageShape& shape : stage_shapes(config)) CHECK(shape.layers == 4);
  config.model.vocab_size = 4096;
  const auto shapes = stage_shapes(config);
  CHECK(shapes[2].layers < shapes[0].layers);
  CHECK(shapes[2].layers >= 1);
}

TEST_CASE("every parameter has one owner in each replica, every expert one altogether", "[rules]") {
  for_each_layout([](const Config& config) {
    std::map<std::string, int> owned;
    for (const StageShape& shape : stage_shapes(config)) {
      for (const Parameter& p : stage_parameters(config, shape)) ++owned[p.name];
      for (int e = 0; has_expert_shards(config, shape) && e < config.layout.expert_shards; ++e) {
        for (const Parameter& p : shard_parameters(config, shape, e)) {
          ++owned[p.name];
          CHECK(p.kind == ParameterKind::expert);
        }
      }
    }
    const auto all = model_parameters(config.model);
    CHECK(owned.size() == all.size());
    for (const Parameter& p : all) CHECK(owned[p.name] == 1);
  });
}

TEST_CASE("shards share the experts in order and as evenly as whole experts allow", "[rules]") {
  for (const int experts : {1, 2, 5, 8, 64, 257})
    for (int shards = 1; shards <= std::min(experts, 12); ++shards) {
      Config config = laid_out(1, 1, shards, 1);
      config.model.n_routed_experts = experts;
      int next = 0;
      std::map<int, int> sizes;
      for (int e = 0; e < shards; ++e) {
        const ExpertRange range = experts_of(config, e);
        CHECK(range.begin == next);
        next = range.end;
        sizes[e] = range.end - range.begin;
      }
      CHECK(next == experts);
      const auto [fewest, most] = fewest_and_most(sizes);
      CHECK(fewest >= 1);
      CHECK(most - fewest <= 1);
    }
}

TEST_CASE("all actors are placed, on nodes that exist, none of them idle, leaders on node 0", "[rules]") {
  for_each_layout([](const Config& config) {
    const auto places = place_actors(config);
    std::set<Address> expected;
    for (const Address& holder : holders(config)) expected.insert(holder);
    for (const Role role : {Role::loader, Role::conductor, Role::checkpointer, Role::rollout}) {
      expected.insert({role, 0});
      CHECK(places.at({role, 0}) == 0);
    }
    std::set<Address> placed;
    std::map<std::uint32_t, int> stages, shards, both;
    for (int n = 0; n < config.layout.nodes; ++n) {
      const auto node = static_cast<std::uint32_t>(n);
      stages[node] = shards[node] = both[node] = 0;
    }
    for (const auto& [address, node] : places) {
      placed.insert(address);
      REQUIRE(node < static_cast<std::uint32_t>(config.layout.nodes));
      if (address.role == Role::stage) ++stages[node], ++both[node];
      if (address.role == Role::expert_shard) ++shards[node], ++both[node];
    }
    CHECK(placed == expected);
    for (const auto& counts : {stages, shards}) {
      const auto [fewest, most] = fewest_and_most(counts);
      CHECK(most - fewest <= 1);
    }
    CHECK(fewest_and_most(both).first >= 1);
  });
}

TEST_CASE("a snapshot is taken of every parameter once", "[rules]") {
  for_each_layout([](const Config& config) {
    const auto all = owners(config), some = snapshot_owners(config);
    const auto twins =
        static_cast<std::size_t>(config.layout.replicas - 1) * static_cast<std::size_t>(config.layout.stages);
    CHECK(some.size() == all.size() - twins);
    for (const Address& owner : some) {
      if (owner.role == Role::stage) CHECK(owner.index < static_cast<std::uint32_t>(config.layout.stages));
    }
  });
}

TEST_CASE("a dense model has no shards, and a stage of dense layers none either", "[rules]") {
  Config dense = laid_out(2, 2, 1, 1);
  dense.model.model_type = "qwen2";
  CHECK(owners(dense).size() == 4);
  const Config config = laid_out(1, 4, 2, 1);
  const auto shapes = stage_shapes(config);
  CHECK(!has_expert_shards(config, shapes[0]));
  CHECK(has_expert_shards(config, shapes[1]));
  CHECK(owners(config).size() == 4 + 3 * 2);
}

// ---- Dispatch -------------------------------------------------------------------------------------------------------

TEST_CASE("a dispatch plan conserves rows, bounds chunks and sends each shard a last one", "[rules]") {
  const std::uint64_t key = random_key(1, "rules_test/dispatch");
  for (std::uint64_t trial = 0; trial < 300; ++trial) {
    std::uint64_t rolls = 0;
    const auto roll = [&](std::uint64_t bound) { return static_cast<int>(random_below(bound, key, trial, rolls++)); };
    Config config;
    config.model.n_routed_experts = 1 + roll(16);
    config.layout.expert_shards = 1 + roll(static_cast<std::uint64_t>(config.model.n_routed_experts));
    config.layout.chunk_rows_max = 16 + roll(50);
    const auto experts = static_cast<std::size_t>(config.model.n_routed_experts);
    std::vector<std::int32_t> counts(experts), sent(experts);
    for (auto& count : counts) count = roll(3) == 0 ? 0 : roll(120);
    INFO("trial " << trial);
    std::int64_t row = 0;
    std::vector<int> chunks(static_cast<std::size_t>(config.layout.expert_shards));
    std::vector<bool> ended(chunks.size());
    for (const DispatchChunk& chunk : plan_dispatch(config, counts.data())) {
      const auto shard = static_cast<std::size_t>(chunk.shard);
      const ExpertRange range = experts_of(config, chunk.shard);
      REQUIRE(chunk.counts.size() == static_cast<std::size_t>(range.end - range.begin));
      CHECK(!ended[shard]);
      CHECK(chunk.chunk == chunks[shard]++);
      CHECK(chunk.row_begin == row);
      CHECK(chunk.rows <= config.layout.chunk_rows_max);
      if (!chunk.last) CHECK(chunk.rows == config.layout.chunk_rows_max);
      if (chunk.rows == 0) CHECK(chunk.chunk == 0);  // only a shard without rows gets an empty chunk
      std::int64_t sum = 0;
      for (std::size_t e = 0; e < chunk.counts.size(); ++e) {
        sent[static_cast<std::size_t>(range.begin) + e] += chunk.counts[e];
        sum += chunk.counts[e];
      }
      CHECK(sum == chunk.rows);
      ended[shard] = chunk.last;
      row += chunk.rows;
    }
    CHECK(sent == counts);
    CHECK(std::count(ended.begin(), ended.end(), false) == 0);
  }
}

TEST_CASE("an expert's rows are cut between tiles or blocks of its own, and chunks stay within their number",
          "[rules]") {
  const std::uint64_t key = random_key(1, "rules_test/tiles");
  for (std::uint64_t trial = 0; trial < 600; ++trial) {
    const bool fp8 = trial % 2 == 0;
    const int together = fp8 ? 128 : 16;
    std::uint64_t rolls = 0;
    const auto roll = [&](std::uint64_t bound) { return static_cast<int>(random_below(bound, key, trial, rolls++)); };
    Config config;
    config.train.dtype = fp8 ? "fp8" : "bfloat16";
    config.device.kind = "cuda";
    config.model.n_routed_experts = 1 + roll(8);
    config.layout.chunk_rows_max = together + roll(300);
    std::vector<std::int32_t> counts(static_cast<std::size_t>(config.model.n_routed_experts));
    for (auto& count : counts) count = roll(3) == 0 ? roll(3) : roll(700);
    std::vector<std::int32_t> sent(counts.size());
    std::int64_t rows = 0, chunks = 0;
    INFO("trial " << trial);
    for (const DispatchChunk& chunk : plan_dispatch(config, counts.data())) {
      ++chunks;
      rows += chunk.rows;
      CHECK(chunk.rows <= config.layout.chunk_rows_max);
      for (std::size_t e = 0; e < sent.size(); ++e) {
        if (chunk.counts[e] > 0) CHECK(sent[e] % together == 0);
        sent[e] += chunk.counts[e];
      }
    }
    CHECK(sent == counts);
    CHECK(chunks <= chunks_max(config, rows));
  }
}

// ---- Decision -------------------------------------------------------------------------------------------------------

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Step {
  Config config = laid_out(2, 2, 2, 1);
  TrainingState state;
  StepPlan plan{WorkKind::train, 7, 3, 4, 100, 0, 128};
  Votes votes;

  // Every owner votes for one tensor of its own, squares 4; the last stages for the losses of their microbatches.
  Step() {
    state.version = 7;
    state.updates = 5;
    for (const Address& owner : owners(config)) {
      Vote& vote = votes[owner];
      vote.step = 7;
      vote.attempt = 3;
      const auto stages = static_cast<std::uint32_t>(config.layout.stages);
      const bool is_stage = owner.role == Role::stage;
      vote.squares = {
          {fmt::format("{} {}", is_stage ? "stage" : "shard", is_stage ? owner.index % stages : owner.index), 4}};
    }
    last_stage(0).losses = {{0, 10.1, 0, 0, 25, 0}, {1, 20.2, 0, 0, 25, 0}};
    last_stage(1).losses = {{2, 30.3, 0, 0, 25, 0}, {3, 40.4, 0, 0, 25, 0}};
  }
  Vote& last_stage(int replica) { return votes.at(stage_address(config, replica, config.layout.stages - 1)); }
  StepOutcome decided() const { return decide(config, state, plan, votes); }
  Verdict verdict() const { return decided().decision.verdict; }
  void spoil_loss() { last_stage(0).losses[0].loss_sum = kNan; }
};

}  // namespace

TEST_CASE("the first limit of a budget that a state has reached is named, and its step is the last", "[rules]") {
  Step step;
  step.config.train.steps = 100;
  CHECK(!step.decided().decision.last);
  step.state.accuracy = 0.5;  // of the answers before the step
  CHECK(step.decided().reason.empty());
  step.config.budget.until_accuracy = 0.5;
  CHECK(step.decided().reason == "budget.until_accuracy");
  step.config.budget.max_tokens = step.plan.tokens;
  CHECK(step.decided().reason == "budget.max_tokens");
  step.config.budget.max_steps = 8;
  CHECK(step.decided().reason == "budget.max_steps");
  step.config.train.steps = 8;
  CHECK(step.decided().reason == "train.steps");
  CHECK(step.decided().decision.last);
  CHECK(step.decided().decision.checkpoint);
}

TEST_CASE("a sound step is committed with its loss, norm and number of updates", "[rules]") {
  const Step step;
  const StepOutcome outcome = step.decided();
  const Decision& d = outcome.decision;
  CHECK(outcome.problem.empty());
  CHECK(d.verdict == Verdict::commit);
  CHECK(d.step == 7);
  CHECK(d.attempt == 3);
  CHECK(d.updates == 6);
  CHECK(d.learning_rate == learning_rate(step.config.train, 7));
  // Two stages (a twin counts once) and the shards of both: 2 stages x 2 shards.
  CHECK(d.gradient_norm == std::sqrt(4.0 * 6));
  CHECK(outcome.losses.loss == Approx(101.0 / 100).epsilon(1e-12));
  CHECK(outcome.losses.targets == 100);
  const TrainingState next = advance(step.config, step.state, step.plan, outcome);
  CHECK(next.version == 8);
  CHECK(next.updates == 6);
  CHECK(next.tokens == 128);
  CHECK(next.skips_in_row == 0);
}

TEST_CASE("gradients are scaled down to the clip norm and never up", "[rules]") {
  Step step;
  const double norm = std::sqrt(24.0);
  step.config.train.clip_norm = 1;
  CHECK(step.decided().decision.clip_scale == 1 / (norm + 1e-6));
  step.config.train.clip_norm = 100;
  CHECK(step.decided().decision.clip_scale == 1);
  step.config.train.clip_norm = 0;
  CHECK(step.decided().decision.clip_scale == 1);
}

TEST_CASE("the total loss has the MTP and balance losses with their weights", "[rules]") {
  Step step;
  step.config.model.num_nextn_predict_layers = 1;
  step.config.model.aux_loss_alpha = 0.01;
  step.config.train.mtp_loss_weight = 0.3;
  step.config.train.batch_sequences = 16;
  step.plan.mtp_target_tokens = 50;
  step.last_stage(0).losses[0].mtp_loss_sum = 150;
  step.votes.at(stage_address(step.config, 1, 0)).losses = {{3, 0, 0, 32, 0, 0}};
  const StepLosses losses = step.decided().losses;
  CHECK(losses.mtp_loss == 3);
  CHECK(losses.balance_loss == 2);
  CHECK(losses.total_loss == Approx(1.01 + 0.3 * 3 + 0.01 * 2).epsilon(1e-12));
}

TEST_CASE("a step that isn't finite is skipped: the version rises, the updates don't", "[rules]") {
  Step step;
  step.spoil_loss();
  CHECK(step.verdict() == Verdict::skip);
  const StepOutcome outcome = step.decided();
  CHECK(outcome.decision.updates == 5);
  const TrainingState next = advance(step.config, step.state, step.plan, outcome);
  CHECK(next.version == 8);
  CHECK(next.updates == 5);
  CHECK(next.skips_in_row == 1);
  Step infinite;
  infinite.votes.at(shard_address(infinite.config, 1, 0)).squares[0].sum = std::numeric_limits<double>::infinity();
  CHECK(infinite.verdict() == Verdict::skip);
}

TEST_CASE("the policy may be to stop, and too many skips in a row stop in any case", "[rules]") {
  Step step;
  step.spoil_loss();
  step.config.train.non_finite = "stop";
  CHECK(step.verdict() == Verdict::stop);
  step.config.train.non_finite = "skip";
  step.config.train.skips_max = 3;
  TrainingState state = step.state;
  for (int skip = 0; skip < 3; ++skip) {
    const StepOutcome outcome = decide(step.config, state, step.plan, step.votes);
    CHECK(outcome.decision.verdict == Verdict::skip);
    state = advance(step.config, state, step.plan, outcome);
  }
  CHECK(decide(step.config, state, step.plan, step.votes).decision.verdict == Verdict::stop);
  const Step sound;
  state = advance(step.config, state, step.plan, decide(step.config, state, step.plan, sound.votes));
  CHECK(state.skips_in_row == 0);
  CHECK(decide(step.config, state, step.plan, step.votes).decision.verdict == Verdict::skip);
}

TEST_CASE("a spike is a loss above the factor times its running mean", "[rules]") {
  Step step;
  step.config.train.spike_factor = 2;
  CHECK(step.verdict() == Verdict::commit);  // no mean yet
  step.state.loss_mean = 0.5;
  CHECK(step.verdict() == Verdict::skip);
  step.config.train.spike = "stop";
  CHECK(step.verdict() == Verdict::stop);
  step.state.loss_mean = 0.51;
  CHECK(step.verdict() == Verdict::commit);
  const TrainingState next = advance(step.config, step.state, step.plan, step.decided());
  CHECK(next.loss_mean == Approx(0.9 * 0.51 + 0.1 * 1.01).epsilon(1e-12));
  step.config.train.spike_factor = 0;
  step.state.loss_mean = 0.001;
  CHECK(step.verdict() == Verdict::commit);
}

TEST_CASE("twins that differ in one bit stop the run, and tensor and owners are named", "[rules]") {
  for (const bool in_sum : {true, false}) {
    Step step;
    TensorSquares& squares = step.votes.at(stage_address(step.config, 1, 1)).squares[0];
    if (in_sum)
      squares.sum = std::nextafter(4.0, 5.0);
    else
      squares.bits ^= 1;
    const StepOutcome outcome = step.decided();
    CHECK(outcome.decision.verdict == Verdict::stop);
    for (const std::string part :
         {"gradients of stage 1 differ between stage 1 (node 0) and stage 3 (node 0)", "step 7"}) {
      INFO(outcome.problem);
      CHECK(outcome.problem.find(part) != std::string::npos);
    }
  }
}

TEST_CASE("a decision doesn't depend on who counted what", "[rules]") {
  Step here, there;
  // A sum that is another one in any other order: only the last of these survives in 53 bits.
  here.last_stage(0).losses = {{0, 1, 0, 0, 25, 0}, {1, 1e17, 0, 0, 25, 0}};
  here.last_stage(1).losses = {{2, -1e17, 0, 0, 25, 0}, {3, 100, 0, 0, 25, 0}};
  there.last_stage(0).losses = {{2, -1e17, 0, 0, 25, 0}, {0, 1, 0, 0, 25, 0}};
  there.last_stage(1).losses = {{3, 100, 0, 0, 25, 0}, {1, 1e17, 0, 0, 25, 0}};
  here.last_stage(0).counts = {{1, {1, 2, 3}}, {3, {4, 0, 0}}};
  here.last_stage(1).counts = {{1, {10, 20, 30}}};
  there.last_stage(1).counts = {{3, {4, 0, 0}}, {1, {11, 22, 33}}};
  const StepOutcome a = here.decided(), b = there.decided();
  CHECK(a.losses.loss == 1);  // sums are in the order of microbatches
  CHECK(b.losses.loss == 1);
  CHECK(a.decision.gradient_norm == b.decision.gradient_norm);
  for (const StepOutcome& outcome : {a, b}) {
    REQUIRE(outcome.decision.counts.size() == 2);
    CHECK(outcome.decision.counts[0].layer == 1);
    CHECK(outcome.decision.counts[0].counts == std::vector<std::int64_t>{11, 22, 33});
    CHECK(outcome.decision.counts[1].counts == std::vector<std::int64_t>{4, 0, 0});
  }
}

TEST_CASE("the last step is the last one, and checkpoints come when they are due", "[rules]") {
  Step step;
  const auto flags = [&](std::int64_t number, int every) {
    step.plan.step = number;
    step.config.train.steps = 10;
    step.config.checkpoint.every_steps = every;
    const Decision d = step.decided().decision;
    return std::pair(d.last, d.checkpoint);
  };
  CHECK(flags(8, 0) == std::pair(false, false));
  CHECK(flags(9, 0) == std::pair(true, true));
  CHECK(flags(3, 4) == std::pair(false, true));
  CHECK(flags(4, 4) == std::pair(false, false));
}

// ---- Learning rate --------------------------------------------------------------------------------------------------

TEST_CASE("the cosine falls from the peak to its minimum", "[rules]") {
  TrainConfig train;
  train.learning_rate = 2;
  train.steps = 100;
  train.minimum_ratio = 0.1;
  CHECK(learning_rate(train, 0) == 2);
  CHECK(learning_rate(train, 50) == Approx(2 * 0.55));
  CHECK(learning_rate(train, 25) == Approx(2 * (0.1 + 0.9 * (1 + std::sqrt(0.5)) / 2)));
  CHECK(learning_rate(train, 100) == Approx(0.2));
  CHECK(learning_rate(train, 1000) == Approx(0.2));
  train.schedule = "constant";
  CHECK(learning_rate(train, 77) == 2);
}

TEST_CASE("warm-up rises to the peak and then leaves the schedule alone", "[rules]") {
  TrainConfig train;
  train.learning_rate = 2;
  train.steps = 1000;
  train.warmup_steps = 4;
  for (const int step : {0, 1, 2}) CHECK(learning_rate(train, step) == Approx(2 * (step + 1) / 4.0));
  TrainConfig without = train;
  without.warmup_steps = 0;
  CHECK(learning_rate(train, 4) == learning_rate(without, 4));
  for (int step = 0; step < 1000; ++step) CHECK(learning_rate(train, step) <= learning_rate(without, step));
}

TEST_CASE("warm-up, stable, decay: the last part of the steps falls in a straight line", "[rules]") {
  TrainConfig train;
  train.learning_rate = 2;
  train.steps = 100;
  train.schedule = "wsd";
  train.decay_fraction = 0.2;
  train.minimum_ratio = 0.1;
  CHECK(learning_rate(train, 80) == 2);
  CHECK(learning_rate(train, 90) == Approx(2 * 0.55));
  CHECK(learning_rate(train, 100) == Approx(0.2));
  train.decay_fraction = 0;
  CHECK(learning_rate(train, 99) == 2);
}

// ---- OrderedSender --------------------------------------------------------------------------------------------------

TEST_CASE("nothing overtakes on a channel, and nothing leaves without a credit", "[rules]") {
  const std::uint64_t key = random_key(1, "rules_test/ordered sender");
  for (std::uint64_t trial = 0; trial < 300; ++trial) {
    INFO("trial " << trial);
    std::uint64_t rolls = 0;
    const auto roll = [&](std::uint64_t bound) { return static_cast<int>(random_below(bound, key, trial, rolls++)); };
    const int entries = 1 + roll(20);
    std::vector<std::pair<int, int>> expected, sent;  // sequence, item
    std::vector<int> sizes;
    for (int s = 0; s < entries; ++s) {
      sizes.push_back(roll(4));
      for (int i = 0; i < sizes.back(); ++i) expected.emplace_back(s, i);
    }
    OrderedSender<std::pair<int, int>> sender;
    std::size_t entered = 0, granted = 0;
    while (sent.size() < expected.size() || entered < sizes.size()) {
      if (entered < sizes.size() && roll(2) == 0) {
        const auto s = static_cast<std::int64_t>(
            random_permute(entered++, static_cast<std::uint64_t>(entries), random_key(trial, "order")));
        RecycledVector<std::pair<int, int>> items;
        for (int i = 0; i < sizes[static_cast<std::size_t>(s)]; ++i) items.emplace_back(static_cast<int>(s), i);
        sender.enter(s, std::move(items));
      } else {
        const int count = roll(3);
        sender.grant(count);
        granted += static_cast<std::size_t>(count);
      }
      sender.drain([&](std::pair<int, int> item) { sent.push_back(item); });
      REQUIRE(sender.credits() >= 0);
      REQUIRE(sent.size() + static_cast<std::size_t>(sender.credits()) == granted);
    }
    CHECK(sent == expected);
    CHECK(sender.waiting() == 0);
    CHECK(sender.next() == entries);
  }
}

TEST_CASE("an entry without items takes its turn without a credit", "[rules]") {
  OrderedSender<int> sender;
  std::vector<int> sent;
  const auto send = [&](int item) { sent.push_back(item); };
  sender.enter(1, {10});
  sender.enter(0, {});
  sender.drain(send);
  CHECK(sender.next() == 1);
  CHECK(sent.empty());
  sender.grant(1);
  sender.drain(send);
  CHECK(sent == std::vector<int>{10});
  CHECK(sender.credits() == 0);
  sender.grant(3);
  sender.enter(2, {20, 21, 22, 23});
  sender.reset();
  CHECK(sender.credits() == 0);
  CHECK(sender.waiting() == 0);
  CHECK(sender.next() == 0);
}
