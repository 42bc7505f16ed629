// The product against the reference: every fixture's tensors, computed by the production actors on several layouts,
// within the tolerances of a float32 implementation. The judge itself is shown to fail.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "actors/checkpoint/safetensors.h"
#include "tests/support/judge.h"
#include "tests/support/run.h"

#include "tests/support/catch.h"

using namespace troupe::test;

namespace {

const std::string kFixtures = TROUPE_SOURCE_DIR "/tests/fixtures/";
const std::vector<std::string> kAll = {"o1_moe_basic",   "o2_v3_groups",  "o3_mtp_aux_tied",
                                       "o4_yarn_nonorm", "o5_qwen2_tied", "o6_llama_untied"};

double learning_rate_of(const std::string& fixture) {
  return nlohmann::json::parse(read_file(kFixtures + fixture + "/train.json")).at("lr");
}

Tensors expected_of(const std::string& fixture) { return load_tensors(kFixtures + fixture + "/expected.safetensors"); }

// What the product computes for a fixture.
Tensors computed(const std::string& fixture, const Arguments& sets = {}, const Arguments& more = {}) {
  const Folder folder;
  Arguments arguments{"check", kFixtures + fixture, "--out", folder / "out.safetensors"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const Ended ended = troupe::test::troupe(with_sets(arguments, sets));
  INFO(ended.out << ended.err);
  REQUIRE(ended.code == 0);
  return load_tensors(folder / "out.safetensors");
}

void expect_right(const std::string& fixture, const Tensors& candidate) {
  const Tensors expected = expected_of(fixture);
  const Judgement judgement = judge(expected, candidate, learning_rate_of(fixture));
  CHECK(judgement.text() == "");
  CHECK(judgement.missing == std::vector<std::string>{});
  CHECK(judgement.compared.size() == expected.size());
}

// Greedy decoding with a key-value cache.
void expect_greedy(const std::string& fixture, const Tensors& candidate) {
  Tensors expected = load_tensors(kFixtures + fixture + "/greedy.safetensors");
  expected.erase("prompt");
  const Judgement judgement = judge(expected, candidate, 0);
  CHECK(judgement.text() == "");
  CHECK(judgement.compared == std::vector<std::string>{"generated", "step_logits"});
}

void expect_right_on(const std::string& fixture, const Arguments& sets) {
  INFO(fixture << " with " << nlohmann::json(sets).dump());
  const Tensors candidate = computed(fixture, sets);
  expect_right(fixture, candidate);
  expect_greedy(fixture, candidate);
}

// The judge's sentences about o3's own expected values after a change to one of them.
std::vector<std::string> failures_after(const std::function<void(Tensors&)>& change) {
  const Tensors expected = expected_of("o3_mtp_aux_tied");
  Tensors candidate = expected;
  change(candidate);
  return judge(expected, candidate, learning_rate_of("o3_mtp_aux_tied")).failures;
}

double largest(const Values& values) {
  double top = 0;
  for (const double x : values.numbers) top = std::max(top, std::abs(x));
  return top;
}

double largest_difference(const Values& a, const Values& b) {
  REQUIRE(a.numbers.size() == b.numbers.size());
  double most = 0;
  for (std::size_t i = 0; i < a.numbers.size(); ++i) most = std::max(most, std::abs(a.numbers[i] - b.numbers[i]));
  return most;
}

// How many sentences when the middle element of a tensor is off by `share` of the tensor's largest value.
std::size_t failures_when_off(const std::string& name, double share, double absolute = 0) {
  return failures_after([&](Tensors& t) {
           Values& values = t.at(name);
           values.numbers[values.numbers.size() / 2] += share * largest(values) + absolute;
         })
      .size();
}

}  // namespace

TEST_CASE("every fixture comes out right: values, gradients, three steps and greedy decoding", "[fixture]") {
  for (const std::string& fixture : kAll) expect_right_on(fixture, {});
}

TEST_CASE("a fixture cut into expert shards and short chunks comes out right", "[fixture]") {
  for (const std::string fixture : {"o2_v3_groups", "o3_mtp_aux_tied"}) {
    expect_right_on(fixture, {"layout.expert_shards=2"});
    expect_right_on(fixture, {"layout.expert_shards=3", "layout.chunk_rows_max=16", "layout.chunk_credits=1"});
  }
}

TEST_CASE("a fixture's losses, gradients and steps don't depend on the cut of its batch", "[fixture]") {
  // Activations are captured a microbatch at a time, the balance loss among them (the total loss has it anyway). The
  // bias of keys has gradients down to 4e-7 (softmax forgets what all keys share), which Adam turns into steps: another
  // order of sums moves one of its 24 elements by 2.1e-5.
  const auto of_whole_batch = [](const std::string& name) {
    for (const std::string part : {"logits", "hidden.", "router.", "mtp.", "balance_loss"})
      if (name.starts_with(part)) return false;
    return !(name.starts_with("after3.") && name.ends_with("k_proj.bias"));
  };
  for (const std::string fixture : {"o2_v3_groups", "o3_mtp_aux_tied", "o5_qwen2_tied"}) {
    Tensors expected = expected_of(fixture);
    std::erase_if(expected, [&](const auto& item) { return !of_whole_batch(item.first); });
    for (const Arguments& sets :
         {Arguments{"train.microbatches=2"}, Arguments{"train.microbatches=2", "train.gradient_lanes=2"},
          Arguments{"train.microbatches=2", "train.gradient_lanes=2", "layout.replicas=2"}}) {
      INFO(fixture << " with " << nlohmann::json(sets).dump());
      const Judgement judgement = judge(expected, computed(fixture, sets), learning_rate_of(fixture));
      CHECK(judgement.text() == "");
      CHECK(judgement.missing == std::vector<std::string>{});
    }
  }
}

TEST_CASE("a fixture cut into stages comes out right, with MTP and tied embeddings too", "[fixture]") {
  for (const std::string& fixture : kAll) expect_right_on(fixture, {"layout.stages=2"});
  expect_right_on("o3_mtp_aux_tied", {"layout.stages=2", "layout.expert_shards=2"});
}

TEST_CASE("recomputed activations are the kept ones", "[fixture]") {
  for (const std::string fixture : {"o2_v3_groups", "o5_qwen2_tied"})
    expect_right_on(fixture, {"train.recompute=true"});
}

TEST_CASE("a sharded Hugging Face folder holds the same model", "[fixture]") {
  const std::string o2 = "o2_v3_groups";
  const Tensors whole = computed(o2);
  const Tensors sharded = computed(o2, {}, {"--weights", kFixtures + o2 + "/sharded"});
  CHECK(sharded.at("logits").numbers == whole.at("logits").numbers);
  CHECK(sharded.at("step_logits").numbers == whole.at("step_logits").numbers);
  expect_greedy(o2, sharded);
}

TEST_CASE("bfloat16 weights are read as the numbers they are", "[fixture]") {
  const std::string o5 = "o5_qwen2_tied", folder = kFixtures + o5 + "/";
  const Tensors expected = load_tensors(folder + "expected_bf16_weights.safetensors");
  const Tensors candidate = computed(o5, {}, {"--weights", folder + "model_bf16.safetensors"});
  const Judgement judgement = judge(expected, candidate, 0);
  CHECK(judgement.text() == "");
  REQUIRE(!judgement.compared.empty());
  CHECK(judgement.compared[0] == "logits");
  CHECK(!judge(expected, computed(o5), 0).failures.empty());
}

TEST_CASE("bfloat16 arithmetic stays near the reference and isn't float32", "[fixture]") {
  // The fixtures in which rounding flips no choice of experts: there bfloat16 costs 1.2% of the largest logit.
  for (const std::string fixture : {"o4_yarn_nonorm", "o5_qwen2_tied", "o6_llama_untied"}) {
    INFO(fixture);
    const Tensors expected = expected_of(fixture), candidate = computed(fixture, {"train.dtype=bfloat16"});
    const double off = largest_difference(expected.at("logits"), candidate.at("logits"));
    CHECK(off < 0.02 * largest(expected.at("logits")));
    CHECK(off > 1e-4 * largest(expected.at("logits")));
  }
}

TEST_CASE("the judge accepts half a tolerance and refuses twice of it, in every class", "[fixture]") {
  struct Row {
    std::string name;
    double share, absolute;
  };
  for (const Row& row : std::vector<Row>{{"logits", 1e-5, 0},
                                         {"hidden.1", 1e-5, 0},
                                         {"mtp.0.logits", 1e-5, 0},
                                         {"router.1.scores", 1e-5, 0},
                                         {"router.1.topk_weights", 1e-5, 0},
                                         {"loss", 2e-6, 0},
                                         {"total_loss", 2e-6, 0},
                                         {"mtp_loss", 2e-6, 0},
                                         {"balance_loss", 2e-6, 0},
                                         {"step.grad_norm", 2e-5, 0},
                                         {"grad.model.embed_tokens.weight", 2e-5, 1e-7},
                                         {"bias.1.1", 0, 1e-6}}) {
    INFO(row.name);
    CHECK(failures_when_off(row.name, row.share / 2, row.absolute / 2) == 0);
    CHECK(failures_when_off(row.name, row.share * 2, row.absolute * 2) == 1);
  }
}

TEST_CASE("the judge of trained weights forgives one element in five hundred, and no large one", "[fixture]") {
  const std::string name = "after3.model.embed_tokens.weight";
  const auto failures = [&](double share_of_elements, double off) {
    return failures_after([&](Tensors& t) {
             auto& numbers = t.at(name).numbers;
             const auto count = static_cast<std::size_t>(share_of_elements * static_cast<double>(numbers.size()));
             for (std::size_t i = 0; i < count; ++i) numbers[i] += off;
           })
        .size();
  };
  const double step = learning_rate_of("o3_mtp_aux_tied");
  CHECK(failures(1, 1e-5) == 0);
  CHECK(failures(0.0019, 5 * step) == 0);
  CHECK(failures(0.0019, 7 * step) == 1);
  CHECK(failures(0.01, 5 * step) == 1);
}

TEST_CASE("the judge refuses what isn't a number, another shape and another count", "[fixture]") {
  CHECK(failures_after([](Tensors&) {}).empty());
  CHECK(failures_after([](Tensors& t) { t.at("logits").numbers[0] = std::nan(""); }).size() == 1);
  CHECK(failures_after([](Tensors& t) { std::swap(t.at("logits").shape[0], t.at("logits").shape[1]); }).size() == 1);
  CHECK(failures_after([](Tensors& t) { ++t.at("router.1.counts").integers[0]; }).size() == 1);
  CHECK(failures_after([](Tensors& t) { t.at("bias.1.1").is_integer = true; }).size() == 1);
}

TEST_CASE("the judge lets chosen experts stand in any order, each with its own weight", "[fixture]") {
  const auto swapped = [](bool weights_too) {
    return failures_after([&](Tensors& t) {
             auto& indices = t.at("router.1.topk_indices").integers;
             auto& weights = t.at("router.1.topk_weights").numbers;
             std::swap(indices[0], indices[1]);
             if (weights_too) std::swap(weights[0], weights[1]);
           })
        .size();
  };
  CHECK(swapped(true) == 0);
  CHECK(swapped(false) == 1);
}

TEST_CASE("every fixture of GRPO comes out right: advantages, log-probabilities, KL, losses and slopes", "[fixture]") {
  for (const std::string fixture : {"grpo/g1_seqmean_g4", "grpo/g2_tokenmean_g8", "grpo/g3_dapo_cliphigher",
                                    "grpo/g4_zero_variance_group", "grpo/g5_on_policy"}) {
    const Tensors expected = expected_of(fixture), candidate = computed(fixture);
    REQUIRE(expected.size() == 8);
    INFO(fixture);
    const Judgement judgement = judge_grpo(expected, candidate);
    CHECK(judgement.text() == "");
    CHECK(judgement.compared.size() == expected.size());
  }
}

TEST_CASE("a fixture of GRPO with something missing or of another kind is refused by its name", "[fixture]") {
  const std::string from = kFixtures + "grpo/g1_seqmean_g4";
  const troupe::SafetensorsReader given(from + "/inputs.safetensors");
  const nlohmann::json config = nlohmann::json::parse(read_file(from + "/config.json"));
  // The fixture without one tensor, with that tensor as `values` if there are any, and with another configuration.
  const auto refused = [&](const std::string& tensor, const std::vector<float>& values,
                           const nlohmann::json& with = nlohmann::json::object()) {
    const Folder folder;
    troupe::SafetensorsWriter out;
    for (const auto& [name, entry] : given.entries()) {
      if (name == tensor) continue;
      if (entry.dtype == "I64") {
        out.add_i64(name, entry.shape, given.read_i64(name).data());
        continue;
      }
      std::vector<float> own(static_cast<std::size_t>(entry.elements()));
      given.read_f32(name, 0, entry.elements(), own.data());
      out.add_f32(name, entry.shape, own.data());
    }
    if (!values.empty()) out.add_f32(tensor, {static_cast<std::int64_t>(values.size())}, values.data());
    out.write(folder / "inputs.safetensors");
    nlohmann::json changed = config;
    changed.update(with);
    write_file(folder / "config.json", changed.dump());
    const Ended ended = troupe::test::troupe({"check", folder / "", "--out", folder / "out.safetensors"});
    CHECK(ended.code == 1);
    CHECK(std::count(ended.err.begin(), ended.err.end(), '\n') == 1);
    return ended.err;
  };
  const auto says = [](const std::string& sentence, const std::string& part) {
    INFO(sentence);
    CHECK(sentence.find(part) != std::string::npos);
  };
  for (const std::string name : {"logits", "old_logprobs", "input_ids", "completion_mask", "rewards"})
    says(refused(name, {}), "/inputs.safetensors: the tensor " + name + " is missing");
  says(refused("logits", {1, 2}), "the tensor logits has 1 dimensions, must have 3");
  says(refused("rewards", {1, 2}), "the tensor rewards has 2 elements, must have 4");
  says(refused("completion_mask", {1, 2}), "the tensor completion_mask is of F32, must be of I64 or I32");
  says(refused("", {}, {{"beta", "much"}}), "/config.json: the key beta is \"much\", which is of another type");
}
