#include "tests/support/small_run.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "actors/checkpoint/manifest.h"

#include "tests/support/catch.h"

namespace troupe::test {

namespace {

constexpr const char* kConfig = R"(name = "small"
[model]
model_type = "deepseek_v3"
vocab_size = 128
hidden_size = 32
intermediate_size = 64
moe_intermediate_size = 16
num_hidden_layers = 2
first_k_dense_replace = 0
num_attention_heads = 2
q_lora_rank = 16
kv_lora_rank = 16
qk_nope_head_dim = 8
qk_rope_head_dim = 4
v_head_dim = 8
n_routed_experts = 4
num_experts_per_tok = 2
n_shared_experts = 1
max_position_embeddings = 32
[train]
sequence_length = 16
microbatches = 4
gradient_lanes = 4
warmup_steps = 5
schedule = "constant"
weight_decay = 0.0
[task]
names = ["reverse"]
level_min = 1
level_max = 2
corrupt = 0.5
[device]
threads = 1
)";

}  // namespace

const Arguments kSupervised{"kind=sft", "data.kind=task", "train.steps=40", "train.batch_sequences=16",
                            "train.learning_rate=1e-2"};
const Arguments kReinforcement{
    "kind=grpo",         "data.kind=none",        "train.steps=20",          "train.batch_sequences=32",
    "grpo.group_size=4", "grpo.completion_max=4", "train.learning_rate=1e-3"};

std::string small_config() { return kConfig; }

School::School() {
  write_file(config(), small_config());
  expect_success(with_sets({"train", config(), "--out", run("cold"), "--quiet"}, kSupervised));
}

Arguments School::train(const std::string& name, const Arguments& sets) const {
  const Arguments all = kReinforcement + Arguments{"train.start_from=" + run("cold")} + sets;
  return with_sets({"train", config(), "--out", run(name), "--quiet"}, all);
}

Arguments School::resume(const std::string& name, const Arguments& sets) const {
  return train(name, sets) + Arguments{"--resume"};
}

std::string School::digest_after(const Arguments& sets) {
  const std::string name = "undisturbed-" + std::to_string(runs_++);
  expect_success(train(name, sets));
  return digest_of(run(name));
}

Ended expect_success(const Arguments& arguments) {
  Ended ended = troupe(arguments);
  INFO(nlohmann::json(arguments).dump() << "\n" << ended.out << ended.err);
  REQUIRE(ended.code == 0);
  return ended;
}

std::string digest_of(const std::string& run) { return weights_digest(resolve_checkpoint(run)); }

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::vector<pid_t> nodes_of(const Process& process) {
  std::vector<pid_t> nodes = process.members();
  std::erase(nodes, process.pid());
  std::sort(nodes.begin(), nodes.end());
  return nodes;
}

std::vector<pid_t> judges_of(const Process& process) {
  namespace fs = std::filesystem;
  std::vector<pid_t> judges;
  for (const pid_t parent : process.members()) {
    std::error_code gone;
    for (const auto& task : fs::directory_iterator("/proc/" + std::to_string(parent) + "/task", gone)) {
      std::ifstream children(task.path() / "children");
      for (pid_t child = 0; children >> child;) {
        const std::string words = read_file("/proc/" + std::to_string(child) + "/cmdline");
        if (has(words, "judge")) judges.push_back(child);
      }
    }
  }
  return judges;
}

Arguments operator+(Arguments a, const Arguments& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace troupe::test
