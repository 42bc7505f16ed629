// Expert-specialized fine-tuning from end to end: what is frozen stays bit for bit, what learns does so alike on every
// layout, and the experts are those that the data chooses.
#include <cmath>
#include <csignal>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "actors/checkpoint/manifest.h"
#include "actors/checkpoint/safetensors.h"
#include "actors/rules/trainable.h"
#include "launcher/run_folder.h"
#include "tests/support/run.h"

#include "tests/support/catch.h"

using namespace troupe::test;
using troupe::resolve_checkpoint;
using troupe::SafetensorsReader;
using troupe::sha256_file;

namespace {

const Arguments kExperts{"train.trainable=experts", "train.experts=[\"1.1\", \"2.0\", \"2.3\"]"};
const Arguments kUpper{"train.trainable=experts", "train.experts=[\"2.2\"]"};  // layers 0 and 1 need no backward
const Arguments kChosen{"train.trainable=experts", "train.experts_threshold=0.6", "train.experts_sample_tokens=500"};
const Arguments kMtpTied{"model.num_nextn_predict_layers=1", "model.tie_word_embeddings=true",
                         "model.aux_loss_alpha=0.001"};
const Arguments kMtpAlone{"train.trainable=experts", "train.experts=[\"3.1\"]"};

Arguments operator+(Arguments a, const Arguments& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

void train(const Arguments& arguments) {
  const Ended ended = troupe::test::troupe(arguments);
  INFO(nlohmann::json(arguments).dump() << "\n" << ended.out << ended.err);
  REQUIRE(ended.code == 0);
}

struct Bits {
  std::string weights, moments;
  std::map<int, std::string> steps;  // loss and norm
  bool operator==(const Bits&) const = default;
};

Bits bits_of(const std::string& run) {
  const std::string checkpoint = resolve_checkpoint(run);
  Bits bits{sha256_file(checkpoint + "/model.safetensors"), sha256_file(checkpoint + "/optimizer.safetensors"), {}};
  for (const nlohmann::json& r : metrics_of(run, "step"))
    bits.steps[r.at("step")] = nlohmann::json{r.at("loss"), r.at("mtp_loss"), r.at("gradient_norm")}.dump();
  return bits;
}

Bits trained(const Arguments& sets) {
  const Folder folder;
  train(tiny_run(folder / "run", sets));
  return bits_of(folder / "run");
}

std::vector<float> values_of(const SafetensorsReader& file, const std::string& name) {
  const std::int64_t count = file.entries().at(name).elements();
  std::vector<float> values(static_cast<std::size_t>(count));
  file.read_f32(name, 0, count, values.data());
  return values;
}

bool same_bytes(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

bool is_of(const std::string& name, const std::vector<std::string>& experts) {
  for (const std::string& expert : experts) {
    const auto [layer, number] = *troupe::expert_of(expert);
    if (name.find(fmt::format("layers.{}.mlp.experts.{}.", layer, number)) != std::string::npos) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("with frozen tensors any layout gives the same bits", "[frozen]") {
  for (const Arguments& numbers :
       {kExperts, kUpper + Arguments{"train.dtype=bfloat16"}, kExperts + kMtpTied, kMtpAlone + kMtpTied}) {
    const Bits bits = trained(numbers);
    for (const Arguments& sets :
         {Arguments{"layout.expert_shards=2", "layout.nodes=2"},
          Arguments{"layout.stages=2", "layout.replicas=2", "layout.nodes=3", "device.threads=2"},
          Arguments{"layout.stages=3", "layout.expert_shards=4", "train.recompute=true", "layout.nodes=2"},
          Arguments{"layout.replicas=4", "layout.slots=1", "layout.stash_factor=0", "layout.chunk_rows_max=16"}}) {
      INFO(nlohmann::json(numbers + sets).dump());
      CHECK(trained(numbers + sets) == bits);
    }
  }
}

TEST_CASE("after twenty steps the named experts have changed and every other tensor is what it was", "[frozen]") {
  const Folder folder;
  train(tiny_run(folder / "before", {"train.steps=3"}));
  train(tiny_run(folder / "run", kExperts + Arguments{"train.start_from=" + folder / "before", "train.steps=20",
                                                      "train.weight_decay=0.5"}));
  const SafetensorsReader before(resolve_checkpoint(folder / "before")), after(resolve_checkpoint(folder / "run"));
  REQUIRE(before.entries().size() == after.entries().size());
  int changed = 0;
  for (const auto& [name, entry] : after.entries()) {
    INFO(name);
    const bool learns = is_of(name, {"1.1", "2.0", "2.3"});
    CHECK(same_bytes(values_of(before, name), values_of(after, name)) != learns);
    changed += learns ? 1 : 0;
  }
  CHECK(changed == 9);
}

TEST_CASE("a checkpoint has moments of what learns and of nothing else", "[frozen]") {
  const Folder folder;
  train(tiny_run(folder / "run", kExperts));
  const SafetensorsReader moments(resolve_checkpoint(folder / "run") + "/optimizer.safetensors");
  CHECK(moments.entries().size() == 18);  // three experts of three matrices, two moments each
  for (const auto& [name, entry] : moments.entries()) {
    INFO(name);
    CHECK(is_of(name, {"1.1", "2.0", "2.3"}));
  }
}

TEST_CASE("what learns has the gradients of a full run, and the norm is theirs alone", "[frozen]") {
  const Folder folder;
  const std::string fixture = TROUPE_SOURCE_DIR "/tests/fixtures/o3_mtp_aux_tied";
  const auto check = [&](const std::string& name, const Arguments& sets) {
    train(with_sets({"check", fixture, "--out", folder / name}, sets));
    return SafetensorsReader(folder / name);
  };
  const SafetensorsReader full = check("full.safetensors", {});
  std::set<std::string> layers;
  for (const auto& [name, entry] : full.entries()) {
    const std::size_t at = name.find(".mlp.experts.2.gate_proj");
    if (name.starts_with("grad.") && at != std::string::npos) layers.insert(name.substr(18, at - 18));
  }
  REQUIRE(layers.size() >= 2);
  for (const std::vector<std::string>& experts :
       {std::vector<std::string>{*layers.begin() + ".2", *layers.rbegin() + ".1"}, {*layers.rbegin() + ".2"}}) {
    const std::string list = nlohmann::json(experts).dump();
    INFO(list);
    const SafetensorsReader some = check("some.safetensors", {"train.trainable=experts", "train.experts=" + list});
    double squares = 0;
    std::size_t count = 0;
    for (const auto& [name, entry] : full.entries()) {
      if (!name.starts_with("grad.")) continue;
      CHECK(some.has(name) == is_of(name, experts));
      if (!some.has(name)) continue;
      ++count;
      const std::vector<float> gradient = values_of(full, name);
      CHECK(same_bytes(values_of(some, name), gradient));
      for (const float g : gradient) squares += static_cast<double>(g) * static_cast<double>(g);
    }
    CHECK(count == 3 * experts.size());
    CHECK(values_of(some, "step.grad_norm")[0] == Approx(std::sqrt(squares)));
    CHECK(values_of(some, "step.grad_norm")[0] < values_of(full, "step.grad_norm")[0]);
    CHECK(values_of(some, "step.loss")[0] == values_of(full, "step.loss")[0]);
  }
}

TEST_CASE("a run with frozen tensors that was killed and goes on has the undisturbed bits", "[frozen]") {
  const Folder folder;
  const Arguments sets = kChosen + Arguments{"train.steps=40", "checkpoint.every_steps=4"};
  train(tiny_run(folder / "whole", sets));
  const Arguments spread = sets + Arguments{"layout.nodes=2", "layout.expert_shards=2"};
  Process process(troupe_command(tiny_run(folder / "run", spread)));
  REQUIRE(process.follow([&] { return metrics_of(folder / "run", "checkpoint").size() >= 2; }));
  process.signal_group(SIGKILL);
  REQUIRE(process.wait().signal == SIGKILL);
  train(tiny_resume(folder / "run", sets + Arguments{"layout.stages=2"}));
  CHECK(metrics_of(folder / "run", "experts").size() == 1);  // chosen once
  CHECK(bits_of(folder / "run") == bits_of(folder / "whole"));
  const Ended other = troupe::test::troupe(tiny_resume(folder / "run", kExperts + Arguments{"train.steps=40"}));
  CHECK(other.code == 1);
  CHECK_THAT(other.err, Catch::Contains("train.experts: [\"1."));
}

TEST_CASE("a node that is killed under frozen training costs no bit", "[frozen]") {
  const Folder folder;
  const Arguments sets = kUpper + Arguments{"train.steps=60"};
  train(tiny_run(folder / "whole", sets));
  Process process(troupe_command(
      tiny_run(folder / "run", sets + Arguments{"layout.nodes=3", "layout.stages=2", "layout.expert_shards=2"})));
  REQUIRE(process.follow([&] { return metrics_of(folder / "run", "step").size() >= 8; }));
  pid_t victim = -1;
  for (const pid_t pid : process.members())
    if (pid != process.pid()) victim = pid;
  REQUIRE(victim > 0);
  kill(victim, SIGKILL);
  const Ended ended = process.wait();
  INFO(ended.out << ended.err);
  REQUIRE(ended.code == 0);
  CHECK_THAT(ended.err, Catch::Contains("is lost"));
  CHECK(bits_of(folder / "run").weights == bits_of(folder / "whole").weights);
}

TEST_CASE("the experts are those that training tokens choose, counted by hand", "[frozen]") {
  const Folder folder;
  const Arguments one_step{"train.trainable=experts", "train.experts_threshold=0.6", "train.experts_sample_tokens=250"};
  train(tiny_run(folder / "run", one_step));
  const auto told = metrics_of(folder / "run", "experts");
  REQUIRE(told.size() == 1);
  CHECK(told[0].at("tokens") ==
        256);  // whole microbatches: those of the first step, which begins with the same weights
  const nlohmann::json first = metrics_of(folder / "run", "step").at(0);
  std::vector<troupe::ExpertCounts> counts;
  for (const nlohmann::json& layer : told[0].at("layers"))
    counts.push_back({layer.at("layer"), layer.at("counts").get<std::vector<std::int64_t>>()});
  REQUIRE(counts.size() == 2);
  for (std::size_t l = 0; l < 2; ++l) {
    std::int64_t most = 0;
    double entropy = 0, total = 0;
    for (const std::int64_t n : counts[l].counts) {
      const double share = static_cast<double>(n) / 512;
      total += share;
      most = std::max(most, n);
      entropy -= n > 0 ? share * std::log(share) : 0;
    }
    CHECK(total == 1);
    CHECK(first.at("load_max_over_mean").at(l).get<double>() == static_cast<double>(most) * 4 / 512);
    CHECK(first.at("router_entropy").at(l).get<double>() == Approx(entropy).epsilon(1e-12));
  }
  CHECK(troupe::load_run_config(folder / "run").train.experts == troupe::choose_experts(counts, 0.6));
  for (const nlohmann::json& layer : told[0].at("layers")) CHECK(layer.at("share").get<double>() >= 0.6);
}

TEST_CASE("a reinforcement run and a phase choose their experts, and what is read back is whole", "[frozen][grpo]") {
  const Folder folder;
  write_file(folder / "two.toml", R"(name = "two"
[model]
model_type = "deepseek_v3"
vocab_size = 128
hidden_size = 16
intermediate_size = 16
moe_intermediate_size = 8
num_hidden_layers = 2
first_k_dense_replace = 1
num_attention_heads = 2
kv_lora_rank = 8
qk_nope_head_dim = 4
qk_rope_head_dim = 4
v_head_dim = 8
n_routed_experts = 4
num_experts_per_tok = 2
max_position_embeddings = 64
[train]
steps = 4
batch_sequences = 4
microbatches = 2
sequence_length = 16
[task]
names = ["reverse"]
level_min = 1
level_max = 2
[evaluate]
tokens_max = 256
exact_match_problems = 0
[[phase]]
name = "cold"
kind = "sft"
data.kind = "task"
[[phase]]
name = "reinforced"
kind = "grpo"
train.trainable = "experts"
train.experts_threshold = 0.4
train.experts_sample_tokens = 256
grpo.group_size = 2
grpo.completion_max = 3
grpo.beta = 0.1
grpo.reference_every = 2
)");
  train({"train", folder / "two.toml", "--out", folder / "run", "--quiet"});
  const std::string phase = folder / "run/phases/reinforced";
  const auto experts = troupe::load_run_config(phase).train.experts;
  REQUIRE_FALSE(experts.empty());
  CHECK(metrics_of(phase, "step").size() == 4);
  for (const nlohmann::json& step : metrics_of(phase, "step")) CHECK(step.at("gaps") == 0);
  const SafetensorsReader before(resolve_checkpoint(folder / "run/phases/cold")), after(resolve_checkpoint(phase)),
      reference(resolve_checkpoint(phase) + "/reference.safetensors");
  CHECK(reference.entries().size() == 3 * experts.size());
  int learned = 0;
  for (const auto& [name, entry] : after.entries()) {
    INFO(name);
    const bool same = same_bytes(values_of(before, name), values_of(after, name));
    CHECK((is_of(name, experts) || same));
    learned += same ? 0 : 1;
    // The last step made the policy the reference.
    if (is_of(name, experts)) CHECK(same_bytes(values_of(reference, name), values_of(after, name)));
  }
  CHECK(learned > 0);
}
