// The rules of reinforcement as functions on values: advantages, weights, which rollout comes from which version, groups,
// microbatches, and the journal, which gives back every bit.
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <set>

#include "actors/data/corpus.h"
#include "actors/rollout_record.h"
#include "actors/rules/grpo.h"
#include "kernels/base/random.h"
#include "kernels/op.h"
#include "tests/support/close.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

Config small_config() {
  Config config;
  config.kind = "grpo";
  config.model.vocab_size = 128;
  config.task.names = {"reverse"};
  config.task.level_min = config.task.level_max = 3;
  config.train.batch_sequences = 8;
  config.train.microbatches = 2;
  config.train.sequence_length = 16;
  config.grpo.group_size = 4;
  config.grpo.completion_max = 6;
  return config;
}

// Answers of drawn lengths, whole groups; rewards 1 for every `right_of`-th.
RolloutRecord record_of(const Config& config, int groups, int right_of) {
  RolloutRecord record;
  record.rollout = 3;
  record.version = 3;
  record.digest = 0xFEDCBA9876543210ULL;
  for (std::int32_t p = 0; p < groups; ++p) {
    for (std::int32_t s = 0; s < config.grpo.group_size; ++s) {
      RolloutAnswer a;
      a.prompt = p;
      a.sample = s;
      a.reward = (p + s) % right_of == 0 ? 1 : 0;
      a.correct = a.reward == 1;
      const auto length = 1 + random_below(5, 7, static_cast<std::uint64_t>(p), static_cast<std::uint64_t>(s));
      for (std::uint64_t t = 0; t < length; ++t) {
        a.tokens.push_back(static_cast<std::int32_t>(random_below(128, 8, t, length)));
        a.logprobs.push_back(-std::abs(random_normal(9, t, length)));
      }
      record.answers.push_back(a);
    }
  }
  return record;
}

}  // namespace

TEST_CASE("advantages are of whole groups; a group of one and a group of equals teach nothing", "[grpo]") {
  GrpoConfig g;
  const std::vector<double> a = advantages({1, 0, 0, 1, 0.5, 0.5, 0.5, 0.5}, 4, g);
  // Mean 1/2, deviation of a sample sqrt(1/3).
  CHECK(test::close(a[0], 0.5 / (std::sqrt(1.0 / 3) + 1e-4), 1e-12));
  CHECK(a[0] == -a[1]);
  for (std::size_t i = 4; i < 8; ++i) CHECK(a[i] == 0);
  CHECK(advantages({3}, 1, g) == std::vector<double>{0});
  g.scale_by_std = false;
  CHECK(advantages({1, 0}, 2, g) == std::vector<double>{0.5, -0.5});
}

TEST_CASE("what tokens weigh sums to one, by sequence and by token, and to the mean length by a constant", "[grpo]") {
  const std::vector<std::int64_t> lengths{2, 6, 4};
  for (const std::string reduction : {"sequence_mean", "token_mean"}) {
    const std::vector<double> weights = token_weights(lengths, reduction, 8);
    double sum = 0;
    for (std::size_t i = 0; i < 3; ++i) sum += weights[i] * static_cast<double>(lengths[i]);
    CHECK(test::close(sum, 1, 1e-12));
  }
  CHECK(token_weights(lengths, "token_mean", 8)[0] == token_weights(lengths, "token_mean", 8)[1]);
  CHECK(test::close(token_weights(lengths, "constant", 8)[1], 1.0 / 24, 1e-15));
}

TEST_CASE("the last tokens of an answer cost reward, down to one", "[grpo]") {
  CHECK(overlong_penalty(10, 20, 5) == 0);
  CHECK(overlong_penalty(15, 20, 5) == 0);
  CHECK(test::close(overlong_penalty(17, 20, 5), -0.4, 1e-12));
  CHECK(overlong_penalty(30, 20, 5) == -1);
  CHECK(overlong_penalty(30, 20, 0) == 0);
}

TEST_CASE("every step has its rollout, and every rollout one version that samples it, never a later one", "[grpo]") {
  for (const int lag : {0, 1, 2, 5}) {
    for (const int updates : {1, 2, 4}) {
      GrpoConfig g;
      g.rollout_lag = lag;
      g.updates_per_rollout = updates;
      constexpr std::int64_t kSteps = 23;
      std::set<std::int64_t> there;  // sampled so far
      for (std::int64_t version = 0; version < kSteps; ++version) {
        const std::vector<std::int64_t> needed = rollouts_needed(g, version, kSteps);
        for (const std::int64_t k : needed) {
          if (there.insert(k).second) CHECK(version_of_rollout(g, k) == version);
          CHECK(version_of_rollout(g, k) == std::max<std::int64_t>(0, k * updates - lag));
        }
        INFO("lag " << lag << " updates " << updates << " step " << version);
        CHECK(there.contains(rollout_of_step(g, version)));
      }
      CHECK(there.size() == static_cast<std::size_t>((kSteps + updates - 1) / updates));
    }
  }
}

TEST_CASE("useful groups are taken in prompt order, and others only fill up in the last round", "[grpo]") {
  Config config = small_config();
  config.grpo.dynamic_sampling = true;
  RolloutRecord record = record_of(config, 4, 1);  // all right: nothing to learn
  for (const std::size_t prompt : {1U, 3U}) record.answers[prompt * 4].reward = 0;
  RolloutRecord one_useful = record;
  one_useful.answers[12].reward = 1;
  CHECK_FALSE(choose_groups(config, false, one_useful));
  CHECK(choose_groups(config, true, one_useful));
  CHECK(one_useful.answers[0].prompt == 0);
  CHECK(one_useful.answers[4].prompt == 1);
  CHECK(choose_groups(config, false, record));
  CHECK(record.answers.size() == 8);
  CHECK(record.answers[0].prompt == 1);
  CHECK(record.answers[4].prompt == 3);
  CHECK(record.groups_flat == 2);
}

TEST_CASE("a rollout's updates share its answers out, each once", "[grpo]") {
  Config config = small_config();
  config.grpo.updates_per_rollout = 3;
  const RolloutRecord record = record_of(config, 6, 2);
  std::vector<int> seen(record.answers.size(), 0);
  for (int update = 0; update < 3; ++update)
    for (const auto& microbatch : members_of(config, record, update)) {
      CHECK(microbatch.size() == 4);
      for (const std::size_t i : microbatch) ++seen[i];
    }
  CHECK(std::all_of(seen.begin(), seen.end(), [](int count) { return count == 1; }));
}

TEST_CASE("a microbatch holds whole answers: what is read, what is predicted, and what each row learns by", "[grpo]") {
  for (const int updates : {1, 2}) {
    Config config = small_config();
    config.grpo.updates_per_rollout = updates;
    const TaskSet tasks(config);
    RolloutRecord record = record_of(config, 2 * updates, 3);
    std::vector<double> rewards;
    for (RolloutAnswer& a : record.answers) {
      a.reference.assign(a.tokens.size(), -2.5F);
      rewards.push_back(a.reward);
    }
    const std::vector<double> advantage = advantages(rewards, 4, config.grpo);  // of whole groups, before any split
    std::set<std::size_t> seen;
    for (int update = 0; update < updates; ++update) {
      PayloadPool pool;
      const std::vector<TokenBatch> batches = batches_of(config, tasks, record, update, pool);
      const auto members = members_of(config, record, update);
      REQUIRE(batches.size() == 2);
      std::vector<std::int64_t> lengths;
      for (const auto& microbatch : members)
        for (const std::size_t at : microbatch)
          lengths.push_back(static_cast<std::int64_t>(record.answers[at].tokens.size()));
      const std::vector<double> weight = token_weights(lengths, config.grpo.reduction, config.generate_length());
      std::size_t number = 0;  // of the answer, among the update's
      for (std::size_t m = 0; m < batches.size(); ++m) {
        const TokenBatch& batch = batches[m];
        CHECK(batch.key.step == record.rollout * updates + update);
        CHECK(batch.target_tokens == std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0}));
        REQUIRE(batch.spans_count == static_cast<std::int32_t>(members[m].size()));
        std::int32_t row = 0;
        for (std::int32_t s = 0; s < batch.spans_count; ++s, ++number) {
          const std::size_t at = members[m][static_cast<std::size_t>(s)];
          CHECK(seen.insert(at).second);
          const RolloutAnswer& a = record.answers[at];
          const auto prompt = tasks.text.prompt(problem_of(config, tasks, true, record.rollout, a.prompt));
          const auto* span = batch.spans.as<std::int32_t>() + 4 * s;
          CHECK(span[0] == row);
          CHECK(span[1] == static_cast<std::int32_t>(prompt.size() + a.tokens.size()) - 1);
          for (std::int32_t t = 0; t < span[1]; ++t, ++row) {
            const auto read = static_cast<std::size_t>(t), i = read + 1 - prompt.size();  // i: the token predicted
            const bool trained = read + 1 >= prompt.size();
            CHECK(batch.ids.as<std::int32_t>()[row] ==
                  (read < prompt.size() ? prompt[read] : a.tokens[read - prompt.size()]));
            CHECK(batch.positions.as<std::int32_t>()[row] == t);
            CHECK(batch.targets.as<std::int32_t>()[row] == (trained ? a.tokens[i] : kNoTarget));
            const float* policy = batch.policy.as<float>() + row * kPolicyInputs;
            if (trained) CHECK(policy[0] == a.logprobs[i]);
            if (trained) CHECK(policy[1] == -2.5F);
            CHECK(policy[2] == (trained ? static_cast<float>(advantage[at]) : 0));
            CHECK(policy[3] == (trained ? static_cast<float>(weight[number]) : 0));
          }
        }
        CHECK(row == batch.length);
      }
    }
    CHECK(seen.size() == record.answers.size());
  }
}

TEST_CASE("the journal gives back every bit of a rollout, and refuses what was cut off", "[grpo]") {
  const Config config = small_config();
  const TaskSet tasks(config);
  RolloutRecord record = record_of(config, 2, 3);
  record.answers[1].kept = {-1, 5, 0, 7};
  record.answers[2].reference = {-0.1F, 1e-38F};
  record.answers[3].detail = "\xFF says \"no\"\n";
  const std::string path = fmt::format("/dev/shm/troupe-journal-test-{}.jsonl", ::getpid());
  const std::string text = journal_text(config, tasks, record);
  std::ofstream(path) << text;
  RolloutRecord read = read_journal(path);
  read.answers[3].detail = record.answers[3].detail;  // bytes that are no text are shown as such
  CHECK(read == record);
  std::ofstream(path) << text.substr(0, text.size() / 2);
  CHECK_THROWS_WITH(read_journal(path), Catch::Contains(path));
  std::filesystem::remove(path);
}
