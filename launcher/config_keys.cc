// The list of keys. Law: a default stands in actors/config.h, everything else about a key stands in its line here.
#include "launcher/config_keys.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

namespace troupe {
namespace {

constexpr double kExact = 9007199254740991;  // integers up to here survive JSON and double

Allowed anything() { return {}; }
Allowed at_least(double least) { return {.least = least, .words = {}}; }
Allowed above(double least) { return {.least = least, .above = true, .words = {}}; }
Allowed within(double least, double most) { return {.least = least, .most = most, .words = {}}; }
Allowed below(double least, double most) { return {.least = least, .most = most, .below = true, .words = {}}; }
Allowed one_of(std::vector<std::string> words) { return {.words = std::move(words)}; }

// Adds the keys of one table, whose values are members of one struct.
template <typename Struct>
class Table {
 public:
  Table(std::vector<Key>& keys, std::string name, Struct Config::*place)
      : keys_(keys), name_(std::move(name)), place_(place) {}

  template <typename Value>
  void add(const std::string& key, Value Struct::*member, Allowed allowed, const std::string& meaning) {
    const auto slot = [place = place_, member](Config& config, bool) -> Slot { return &(config.*place.*member); };
    const bool numbers = name_ == "model" || name_ == "train" || name_ == "data" || name_ == "grpo" ||
                         name_ == "task" || name_ == "distill";
    keys_.push_back({name_ + "." + key, slot, std::move(allowed), meaning, numbers});
  }
  // For a key on which numbers depend, in a table where they else don't.
  template <typename Value>
  void add_number(const std::string& key, Value Struct::*member, Allowed allowed, const std::string& meaning) {
    add(key, member, std::move(allowed), meaning);
    keys_.back().numbers = true;
  }
  // For a key that stands in a table of numbers but changes no bit.
  template <typename Value>
  void add_aside(const std::string& key, Value Struct::*member, Allowed allowed, const std::string& meaning) {
    add(key, member, std::move(allowed), meaning);
    keys_.back().numbers = false;
  }

 private:
  std::vector<Key>& keys_;
  std::string name_;
  Struct Config::*place_;
};

template <typename Value>
void add_rope(std::vector<Key>& keys, const std::string& key, Value RopeScaling::*member, Allowed allowed,
              const std::string& meaning) {
  const auto slot = [member](Config& config, bool create) -> Slot {
    if (!config.model.rope_scaling && !create) return {};
    if (!config.model.rope_scaling) config.model.rope_scaling.emplace();
    return &((*config.model.rope_scaling).*member);
  };
  keys.push_back({"model.rope_scaling." + key, slot, std::move(allowed), meaning, true});
}

void add_rope_keys(std::vector<Key>& keys) {
  const auto type = [](Config& config, bool) -> Slot { return RopeType{&config.model.rope_scaling}; };
  keys.push_back(
      {"model.rope_scaling.type", type, one_of({"yarn", "none"}), "longer contexts than trained on, by YaRN", true});
  add_rope(keys, "factor", &RopeScaling::factor, at_least(1), "how many times longer");
  add_rope(keys, "original_max_position_embeddings", &RopeScaling::original_max_position_embeddings, at_least(1),
           "context before scaling");
  add_rope(keys, "beta_fast", &RopeScaling::beta_fast, above(0), "turns above which a frequency is kept");
  add_rope(keys, "beta_slow", &RopeScaling::beta_slow, above(0), "turns below which a frequency is divided");
  add_rope(keys, "mscale", &RopeScaling::mscale, at_least(0), "attention scale by the logarithm of factor");
  add_rope(keys, "mscale_all_dim", &RopeScaling::mscale_all_dim, at_least(0), "the same for all dimensions");
}

void add_model_keys(std::vector<Key>& keys) {
  using M = ModelConfig;
  Table<M> t(keys, "model", &Config::model);
  t.add("model_type", &M::model_type, one_of({"deepseek_v3", "qwen2", "llama"}), "architecture");
  t.add("vocab_size", &M::vocab_size, at_least(2),
        "tokens; at least those of data.tokenizer (bytes: 256); arithmetic 128");
  t.add("hidden_size", &M::hidden_size, at_least(1), "width of the residual stream");
  t.add("intermediate_size", &M::intermediate_size, at_least(1), "width of a dense feed-forward layer");
  t.add("num_hidden_layers", &M::num_hidden_layers, at_least(1), "layers, without multi-token prediction");
  t.add("num_attention_heads", &M::num_attention_heads, at_least(1), "attention heads");
  t.add("num_key_value_heads", &M::num_key_value_heads, at_least(1), "qwen2, llama: heads of keys and values");
  t.add("head_dim", &M::head_dim, at_least(0), "qwen2, llama: width of a head; 0: hidden_size / heads");
  t.add("attention_bias", &M::attention_bias, anything(), "biases of q, k, v (qwen2 always has them)");
  t.add("tie_word_embeddings", &M::tie_word_embeddings, anything(), "the head is the embedding");
  t.add("rms_norm_eps", &M::rms_norm_eps, above(0), "added to the mean square in every norm");
  t.add("rope_theta", &M::rope_theta, above(0), "base of the rotary frequencies");
  t.add("rope_interleave", &M::rope_interleave, anything(), "deepseek_v3: rotate pairs (2i, 2i+1)");
  add_rope_keys(keys);
  t.add("max_position_embeddings", &M::max_position_embeddings, at_least(1), "longest context");
  t.add("bos_token_id", &M::bos_token_id, at_least(0), "token that begins a document");
  t.add("eos_token_id", &M::eos_token_id, at_least(0), "token that ends a document");
  t.add("q_lora_rank", &M::q_lora_rank, at_least(0), "rank of the queries; 0 or absent: full rank");
  t.add("kv_lora_rank", &M::kv_lora_rank, at_least(1), "rank of keys and values");
  t.add("qk_nope_head_dim", &M::qk_nope_head_dim, at_least(1), "width of a head without rotation");
  t.add("qk_rope_head_dim", &M::qk_rope_head_dim, at_least(2), "width of a head with rotation");
  t.add("v_head_dim", &M::v_head_dim, at_least(1), "width of a head's values");
  t.add("moe_intermediate_size", &M::moe_intermediate_size, at_least(1), "width of an expert");
  t.add("n_routed_experts", &M::n_routed_experts, at_least(0), "experts of a layer; 0: dense");
  t.add("n_shared_experts", &M::n_shared_experts, at_least(0), "experts that see every token");
  t.add("num_experts_per_tok", &M::num_experts_per_tok, at_least(0), "routed experts that see a token");
  t.add("n_group", &M::n_group, at_least(1), "groups of experts");
  t.add("topk_group", &M::topk_group, at_least(1), "groups that a token may choose from");
  t.add("first_k_dense_replace", &M::first_k_dense_replace, at_least(0), "first layers that stay dense");
  t.add("norm_topk_prob", &M::norm_topk_prob, anything(), "gate weights of a token sum to one");
  t.add("routed_scaling_factor", &M::routed_scaling_factor, above(0), "times the routed experts' sum");
  t.add("aux_loss_alpha", &M::aux_loss_alpha, at_least(0), "weight of the sequence-wise balance loss");
  t.add("num_nextn_predict_layers", &M::num_nextn_predict_layers, within(0, 1), "multi-token prediction modules");
}

void add_train_keys(std::vector<Key>& keys) {
  using T = TrainConfig;
  Table<T> t(keys, "train", &Config::train);
  t.add("steps", &T::steps, within(1, kExact), "optimizer steps");
  t.add("seed", &T::seed, within(0, kExact), "of the weights and of the order of the data");
  t.add("batch_sequences", &T::batch_sequences, at_least(1), "sequences in the global batch");
  t.add("sequence_length", &T::sequence_length, at_least(2), "tokens of a sequence");
  t.add("microbatches", &T::microbatches, at_least(1), "parts of the batch; divides batch_sequences");
  t.add("gradient_lanes", &T::gradient_lanes, at_least(1), "sums of the gradient; a power of two, fixes the bits");
  t.add("dtype", &T::dtype, one_of({"float32", "bfloat16", "fp8"}),
        "type of activations and of products; fp8: bfloat16, linear layers of MLPs in E4M3");
  t.add("fp8_attention", &T::fp8_attention, anything(), "in fp8 attention's projections are in E4M3 too");
  t.add_aside("recompute", &T::recompute, anything(), "recompute a layer's activations: less memory, same bits");
  t.add("optimizer", &T::optimizer, one_of({"adamw"}), "how weights move");
  t.add("learning_rate", &T::learning_rate, at_least(0), "peak learning rate");
  t.add("schedule", &T::schedule, one_of({"cosine", "wsd", "constant"}), "learning rate after the warm-up");
  t.add("warmup_steps", &T::warmup_steps, at_least(0), "steps of linear warm-up");
  t.add("minimum_ratio", &T::minimum_ratio, within(0, 1), "last learning rate / peak");
  t.add("decay_fraction", &T::decay_fraction, within(0, 1), "wsd: last part of the steps, which decays");
  t.add("beta1", &T::beta1, below(0, 1), "AdamW: memory of the mean");
  t.add("beta2", &T::beta2, below(0, 1), "AdamW: memory of the mean square");
  t.add("epsilon", &T::epsilon, above(0), "AdamW: added to the root");
  t.add("weight_decay", &T::weight_decay, at_least(0), "AdamW: decay of matrices");
  t.add("clip_norm", &T::clip_norm, at_least(0), "largest norm of the gradient; 0: no clipping");
  t.add("bias_update_rate", &T::bias_update_rate, at_least(0), "gamma of the router bias; 0: frozen");
  t.add("mtp_loss_weight", &T::mtp_loss_weight, at_least(0), "weight of the multi-token prediction loss");
  t.add("non_finite", &T::non_finite, one_of({"skip", "stop"}), "what a step that is not finite does");
  t.add("spike_factor", &T::spike_factor, at_least(0), "loss above this many running means is a spike; 0: off");
  t.add("spike", &T::spike, one_of({"skip", "stop"}), "what a spike does");
  t.add_aside("skips_max", &T::skips_max, at_least(0), "skipped steps in a row before the run stops");
  t.add("initialization", &T::initialization, one_of({"scaled", "normal"}), "how weights start");
  t.add("initializer_range", &T::initializer_range, above(0), "normal: standard deviation");
  t.add("start_from", &T::start_from, anything(), "directory of weights to start from; empty: the seed");
  t.add("trainable", &T::trainable, one_of({"all", "experts"}),
        "what learns: everything, or some routed experts alone");
  t.add("experts", &T::experts, anything(), "those experts, each \"LAYER.EXPERT\"");
  t.add("experts_threshold", &T::experts_threshold, within(0, 1),
        "or of each layer the fewest that together have such a share of its tokens; 0: named");
  t.add("experts_score", &T::experts_score, one_of({"token"}), "token: share of the tokens' choices");
  t.add("experts_sample_tokens", &T::experts_sample_tokens, within(1, kExact), "training tokens to choose by");
}

void add_data_keys(std::vector<Key>& keys) {
  using D = DataConfig;
  Table<D> t(keys, "data", &Config::data);
  t.add("kind", &D::kind, one_of({"text", "jsonl", "chat", "arithmetic", "task", "random", "none"}),
        "text, JSONL of texts, of conversations, built-in sums, solutions of [task], random tokens (to measure), or no "
        "data (tools)");
  t.add("files", &D::files, anything(), "paths: .txt, .jsonl, or .tokens of troupe tokenize");
  t.add("weights", &D::weights, above(0), "mixing weights, one a file; empty: by size");
  t.add("held_out", &D::held_out, below(0, 1), "last part of every file, never trained on");
  t.add("tokenizer", &D::tokenizer, anything(), "bytes, or a tokenizer.json of Hugging Face, or its folder");
  t.add("template", &D::chat_template, one_of({"plain", "r1"}), "chat: how a conversation is written down");
  t.add("long_examples", &D::long_examples, one_of({"refuse", "drop", "truncate"}),
        "chat: what becomes of an example longer than a sequence");
  t.add("text_key", &D::text_key, anything(), "key of the text in a JSONL object");
  t.add("mask_documents", &D::mask_documents, anything(), "attention and targets stay within a document");
  t.add_aside("licence", &D::licence, anything(), "told to the manifest");
  t.add("arithmetic_digits", &D::arithmetic_digits, within(1, 9), "most digits of an operand");
  t.add("arithmetic_operations", &D::arithmetic_operations, anything(), "any of + - *");
}

void add_task_keys(std::vector<Key>& keys) {
  using T = TaskConfig;
  Table<T> t(keys, "task", &Config::task);
  t.add("names", &T::names, anything(), "arithmetic, reverse, sort, countdown, jsonl: problems of each in turn");
  t.add("level_min", &T::level_min, within(1, 18), "easiest: digits of operands or strings, numbers of a countdown");
  t.add("level_max", &T::level_max, within(1, 18), "hardest");
  t.add("operations", &T::operations, anything(), "arithmetic: any of + - *");
  t.add("number_max", &T::number_max, within(2, 1000), "countdown: largest number given");
  t.add("target_max", &T::target_max, within(1, 1'000'000), "countdown: largest target");
  t.add("files", &T::files, anything(), "jsonl: paths");
  t.add("prompt_key", &T::prompt_key, anything(), "jsonl: key of the question");
  t.add("answer_key", &T::answer_key, anything(), "jsonl: key of the solution; the answer follows its last ####");
  t.add("template", &T::form, one_of({"plain", "r1"}), "a few characters, or a question with <think> and <answer>");
  t.add("corrupt", &T::corrupt, within(0, 1), "share of training solutions written wrong: a weak cold start");
  using J = JudgeConfig;
  Table<J> judge(keys, "judge", &Config::judge);
  judge.add_number("command", &J::command, anything(),
                   "of a shell, with absolute paths: scores a request line; empty: built-in verification");
  judge.add("processes", &J::processes, within(1, 1024), "judges at once, each a process of its own");
  judge.add("cpu_seconds", &J::cpu_seconds, within(1, 3600), "processor time of one command");
  judge.add("wall_seconds", &J::wall_seconds, within(1, 3600), "of one request; then its judge counts as hung");
  judge.add("memory_mib", &J::memory_mib, within(16, 1 << 20), "address space of each process of a command");
  judge.add("file_mib", &J::file_mib, within(0, 1 << 20), "largest file that a command may write");
  judge.add("processes_max", &J::processes_max, within(1, 4096), "processes and threads of one command");
  judge.add("output_kib", &J::output_kib, within(1, 1 << 20), "longest output of a command");
  judge.add("retries_max", &J::retries_max, within(0, 100), "of a request whose judge died or hung");
  judge.add_number("format_reward", &J::format_reward, within(0, 1), "added for <think> and <answer> in their places");
  judge.add_number("on_failure", &J::on_failure, one_of({"stop", "zero"}),
                   "what a request does that no retry could save");
}

void add_schedule_keys(std::vector<Key>& keys) {
  using E = EvaluateConfig;
  Table<E> evaluate(keys, "evaluate", &Config::evaluate);
  evaluate.add("every_steps", &E::every_steps, at_least(0), "steps between evaluations; 0: only at the end");
  evaluate.add("tokens_max", &E::tokens_max, within(0, kExact), "held-out tokens during training; 0: all");
  evaluate.add("exact_match_problems", &E::exact_match_problems, at_least(0), "sums answered at the end; 0: none");
  evaluate.add("problems", &E::problems, at_least(0), "held-out problems of [task] answered each time; 0: none");
  evaluate.add("samples", &E::samples, within(0, 1024), "answers to each at temperature, beside the greedy one");
  evaluate.add("split", &E::split, one_of({"held_out", "train"}), "which problems; train: what a teacher is asked");
  evaluate.add("temperature", &E::temperature, above(0), "of those answers");
  evaluate.add("top_p", &E::top_p, within(0.01, 1), "those answers come from the likeliest tokens of this mass");
  using B = BudgetConfig;
  Table<B> budget(keys, "budget", &Config::budget);
  budget.add("max_steps", &B::max_steps, within(0, kExact), "ends after so many steps; 0: no limit");
  budget.add("max_tokens", &B::max_tokens, within(0, kExact), "ends after so many trained tokens; 0: no limit");
  budget.add("max_hours", &B::max_hours, at_least(0), "ends after so many hours; 0: no limit");
  budget.add("max_cost", &B::max_cost, at_least(0), "ends after so many dollars; 0: no limit");
  budget.add("until_accuracy", &B::until_accuracy, within(0, 1),
             "ends when such a share of answers is right; 0: no limit");
  using C = CheckpointConfig;
  Table<C> checkpoint(keys, "checkpoint", &Config::checkpoint);
  checkpoint.add("every_steps", &C::every_steps, at_least(0), "steps between checkpoints; 0: only at the end");
  checkpoint.add("keep_last", &C::keep_last, at_least(1), "newest checkpoints kept");
  checkpoint.add("keep_best", &C::keep_best, anything(), "keep the one with the lowest held-out loss too");
}

void add_hardware_keys(std::vector<Key>& keys) {
  using H = HardwareConfig;
  Table<H> t(keys, "hardware", &Config::hardware);
  t.add("name", &H::name, anything(), "what it is");
  t.add("source", &H::source, anything(), "where the rates were measured");
  t.add("date", &H::date, anything(), "of the figures");
  t.add("float32_gflops", &H::float32_gflops, above(0), "peak of one compute thread");
  t.add("bfloat16_gflops", &H::bfloat16_gflops, above(0), "peak of one compute thread");
  t.add("fp8_gflops", &H::fp8_gflops, above(0), "peak of one compute thread");
  t.add("memory_gbytes_per_second", &H::memory_gbytes_per_second, above(0), "one compute thread");
  t.add("compute_threads", &H::compute_threads, at_least(1), "of a device; a GPU counts as one");
  t.add("dollars_per_hour", &H::dollars_per_hour, at_least(0), "of one node with all its threads");
  t.add("product_share", &H::product_share, within(0.01, 1), "of the peak, that a model's products reach");
  t.add("memory_share", &H::memory_share, within(0.01, 1), "of the memory's rate, that copies reach");
  t.add("memory_gbytes", &H::memory_gbytes, at_least(0), "of a device; 0: not told");
  t.add("host_gbytes", &H::host_gbytes, at_least(0), "host memory beside a device; 0: not told");
  t.add("devices_per_machine", &H::devices_per_machine, at_least(1), "that the link inside joins");
  t.add("inside_gbytes_per_second", &H::inside_gbytes_per_second, at_least(0),
        "reached by a device, one way, within its machine; 0: not told");
  t.add("inside_latency_us", &H::inside_latency_us, at_least(0), "of a small message within a machine");
  t.add("between_gbytes_per_second", &H::between_gbytes_per_second, at_least(0),
        "reached by a device, one way, to other machines; 0: not told");
  t.add("between_latency_us", &H::between_latency_us, at_least(0), "of a small message between machines");
  t.add("spot_dollars_per_hour", &H::spot_dollars_per_hour, at_least(0),
        "of a device that may be taken away; 0: there is none");
  t.add("preemptions_per_hour", &H::preemptions_per_hour, at_least(0), "of such a device");
  t.add("vendor", &H::vendor, anything(), "keys whose figures are the vendor's");
  t.add("measured", &H::measured, anything(), "keys whose figures were measured and published");
  t.add("assumed", &H::assumed, anything(), "keys whose figures are assumptions");
}

void add_cluster_keys(std::vector<Key>& keys) {
  using N = LaunchConfig;
  Table<N> launch(keys, "launch", &Config::launch);
  launch.add("ports", &N::ports, anything(),
             "where the launcher listens for processes on other machines: FIRST-LAST; 0: any port");
  using Q = SlurmConfig;
  Table<Q> slurm(keys, "slurm", &Config::slurm);
  slurm.add("partition", &Q::partition, anything(), "--partition of sbatch; empty: Slurm's default");
  slurm.add("account", &Q::account, anything(), "--account");
  slurm.add("time", &Q::time, anything(), "--time");
  slurm.add("gres", &Q::gres, anything(), "--gres, of each node: \"gpu:8\"");
  slurm.add("constraint", &Q::constraint, anything(), "--constraint");
  slurm.add("processes_per_node", &Q::processes_per_node, at_least(1), "node processes on each of Slurm's nodes");
  slurm.add("signal_seconds", &Q::signal_seconds, within(1, 65535),
            "before the job's time is up: the run is saved, and queued again");
  slurm.add("lines", &Q::lines, anything(), "more lines of the batch script, before its command");
}

void add_machine_keys(std::vector<Key>& keys) {
  using L = LayoutConfig;
  Table<L> layout(keys, "layout", &Config::layout);
  layout.add("nodes", &L::nodes, at_least(1), "processes that compute");
  layout.add("replicas", &L::replicas, at_least(1), "copies of the model; divides train.gradient_lanes");
  layout.add("stages", &L::stages, at_least(1), "cuts of the layers");
  layout.add("expert_shards", &L::expert_shards, at_least(1), "cuts of the experts of a stage");
  layout.add("slots", &L::slots, at_least(0), "microbatches in flight per stage; 0: stages + 3");
  layout.add("chunk_rows_max", &L::chunk_rows_max, at_least(16), "rows in one expert chunk");
  layout.add("chunk_credits", &L::chunk_credits, at_least(1), "chunks in flight per stage, shard, layer and way");
  layout.add("sums_elements_max", &L::sums_elements_max, at_least(16), "of a gradient, in one message between twins");
  layout.add("stash_factor", &L::stash_factor, at_least(0), "rows kept for backward, times their mean; 0: none");
  layout.add("shards_in_blocks", &L::shards_in_blocks, anything(), "neighbouring shards share a node");
  layout.add("transport", &L::transport, one_of({"auto", "shm", "tcp", "ib", "any"}),
             "how nodes talk; auto: shared memory on one machine, any between machines");
  layout.add("interface", &L::interface, anything(), "network interface; empty: chosen");
  layout.add("device_transport", &L::device_transport, one_of({"auto", "ucx", "nccl", "host"}),
             "how rows leave a GPU; auto: by UCX where it moves such memory, NCCL in a machine, else pinned memory");
  layout.add("spin_us", &L::spin_us, within(0, 10'000),
             "looks for messages so long before it sleeps, if there is a core a thread; 0: sleeps at once");
  using S = LinkConfig;
  Table<S> link(keys, "link", &Config::link);
  link.add("delay_ms", &S::delay_ms, within(0, 10000), "to measure a slow network: added one way between nodes");
  link.add("gbits_per_second", &S::gbits_per_second, at_least(0), "the same: each way between two nodes; 0: no limit");
  using D = DeviceConfig;
  Table<D> device(keys, "device", &Config::device);
  device.add("kind", &D::kind, one_of({"auto", "cpu", "cuda"}), "what computes; auto: a GPU if there is one");
  device.add("products", &D::products, one_of({"mma", "wgmma", "cublaslt"}),
             "of bfloat16 on a GPU: own kernels on tensor cores, on warpgroups (compute capability 9.0), or cuBLASLt's "
             "where it can");
  device.add("threads", &D::threads, at_least(0), "compute threads of a node; 0: cores / nodes");
  device.add(
      "staged_kib_min", &D::staged_kib_min, within(0, 1 << 20),
      "with a GPU and several nodes: what is at least so large is copied to and from the host beside kernels; 0: "
      "nothing is");
  device.add("hardware", &D::hardware, anything(), "a name in configs/hardware, or a path: rates and price");
  using J = InspectConfig;
  Table<J> inspect(keys, "inspect", &Config::inspect);
  inspect.add("journal_mib", &J::journal_mib, within(0, 1 << 16),
              "file of a node's last messages, segments and waits; 0: none");
  inspect.add("journals_kept", &J::journals_kept, within(1, 1000), "files of a node, each of one of its processes");
  inspect.add("listen", &J::listen, anything(),
              "address at which nodes answer the inspector; elsewhere than on loopback they want the run's token for "
              "everything; empty: nowhere");
  using I = LimitsConfig;
  Table<I> limits(keys, "limits", &Config::limits);
  limits.add("heartbeat_ms", &I::heartbeat_ms, at_least(1), "between signs of life");
  limits.add("silence_ms", &I::silence_ms, at_least(1), "silence after which a node counts as lost");
  limits.add("start_seconds", &I::start_seconds, at_least(1), "for all nodes to appear");
  limits.add("stall_seconds", &I::stall_seconds, at_least(1),
             "without any progress, then it is told who waits for whom");
  using R = RecoveryConfig;
  Table<R> recovery(keys, "recovery", &Config::recovery);
  recovery.add("copies", &R::copies, within(0, 1), "of every state, in another node's memory; 0: only checkpoints");
  recovery.add("restarts_max", &R::restarts_max, at_least(0), "of nodes, without a committed step between");
  using G = GenerateConfig;
  Table<G> generate(keys, "generate", &Config::generate);
  generate.add("sequences_max", &G::sequences_max, at_least(1), "sequences decoded together");
  generate.add_number("length_max", &G::length_max, at_least(0), "prompt and answer; 0: train.sequence_length");
  using K = DistillConfig;
  Table<K> distill(keys, "distill", &Config::distill);
  distill.add("teacher", &K::teacher, anything(), "a phase before, or a folder of weights; empty: the phase before");
  distill.add("problems", &K::problems, at_least(1), "of the training split, asked of the teacher");
  distill.add("samples", &K::samples, within(1, 1024), "answers to each");
  distill.add("keep", &K::keep, at_least(1), "right answers kept of each problem, at most");
  distill.add("temperature", &K::temperature, above(0), "of the teacher's answers");
  add_hardware_keys(keys);
}

void add_grpo_keys(std::vector<Key>& keys) {
  using G = GrpoConfig;
  Table<G> t(keys, "grpo", &Config::grpo);
  t.add("group_size", &G::group_size, at_least(1), "samples of a prompt; divides train.batch_sequences");
  t.add("rollout_lag", &G::rollout_lag, within(0, 64), "step n learns from samples of version max(0, n - rollout_lag)");
  t.add("updates_per_rollout", &G::updates_per_rollout, at_least(1), "steps that share the samples of a rollout");
  t.add("temperature", &G::temperature, above(0), "of sampling and of every log-probability");
  t.add("top_p", &G::top_p, within(0.01, 1), "samples come from the likeliest tokens of this mass");
  t.add("completion_max", &G::completion_max, at_least(0), "tokens of an answer; 0: what the sequence leaves");
  t.add("clip_low", &G::clip_low, within(0, 1), "the ratio counts from 1 - clip_low");
  t.add("clip_high", &G::clip_high, at_least(0), "up to 1 + clip_high");
  t.add("dual_clip", &G::dual_clip, at_least(0), "most that a ratio counts at a negative advantage; 0: no bound");
  t.add("importance_max", &G::importance_max, above(0), "with a lag: the most that an older sample weighs");
  t.add("beta", &G::beta, at_least(0), "weight of the divergence from the reference policy (k3)");
  t.add("reference_every", &G::reference_every, at_least(0), "steps until the reference is the policy; 0: never");
  t.add("reduction", &G::reduction, one_of({"sequence_mean", "token_mean", "constant"}), "how tokens are averaged");
  t.add("scale_by_std", &G::scale_by_std, anything(), "advantages are divided by the group's deviation");
  t.add("advantage_epsilon", &G::advantage_epsilon, at_least(0), "added to that deviation");
  t.add("std_ddof", &G::std_ddof, within(0, 1), "1: the deviation of a sample, 0: of a population");
  t.add("dynamic_sampling", &G::dynamic_sampling, anything(), "pass over groups whose rewards are all equal");
  t.add("sampling_rounds_max", &G::sampling_rounds_max, within(1, 64), "rounds of prompts with dynamic sampling");
  t.add("overlong_tokens", &G::overlong_tokens, at_least(0), "last tokens of an answer that cost reward; 0: none");
}

// Printed so that a reader takes it for the type it is: TOML's 1 is an integer, 1.0 is not.
std::string real_text(double value) {
  const std::string text = fmt::format("{}", value);
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}

std::size_t edits(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, changed});
    }
  }
  return row[b.size()];
}

std::string last_part(const std::string& name) { return name.substr(name.rfind('.') + 1); }

template <typename... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <typename... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;

}  // namespace

bool Allowed::admits(double value) const {
  if (!std::isfinite(value)) return false;
  return (above ? value > least : value >= least) && (below ? value < most : value <= most);
}

bool Allowed::admits(const std::string& value) const {
  return words.empty() || std::find(words.begin(), words.end(), value) != words.end();
}

std::string Allowed::text() const {
  if (!words.empty()) return fmt::format("{}", fmt::join(words, " or "));
  if (!std::isfinite(least) && !std::isfinite(most)) return "";
  if (!std::isfinite(most)) return above ? fmt::format("above {}", least) : fmt::format("{}..", least);
  return fmt::format("{}..{}{}", least, most, below ? fmt::format(" without {}", most) : "");
}

namespace {

std::vector<Key> list_keys() {
  std::vector<Key> keys;
  const auto name = [](Config& config, bool) -> Slot { return &config.name; };
  keys.push_back({"name", name, anything(), "of the run; its folder is runs/NAME unless told", false});
  const auto kind = [](Config& config, bool) -> Slot { return &config.kind; };
  keys.push_back(
      {"kind", kind, one_of({"pretrain", "sft", "grpo", "evaluate", "distill"}), "what is trained, and how", true});
  add_model_keys(keys);
  add_train_keys(keys);
  add_data_keys(keys);
  add_task_keys(keys);
  add_schedule_keys(keys);
  add_grpo_keys(keys);
  add_machine_keys(keys);
  add_cluster_keys(keys);
  return keys;
}

}  // namespace

const std::vector<Key>& config_keys() {
  static const std::vector<Key> keys = list_keys();
  return keys;
}

std::string type_text(const Slot& slot) {
  return std::visit(
      Overloaded{[](std::monostate) { return "nothing"; }, [](bool*) { return "true or false"; },
                 [](double*) { return "a number"; }, [](std::string*) { return "a string"; },
                 [](RopeType) { return "a string"; }, [](std::vector<std::string>*) { return "a list of strings"; },
                 [](std::vector<double>*) { return "a list of numbers"; }, [](auto*) { return "an integer"; }},
      slot);
}

std::string in_quotes(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += fmt::format("\\{}", c);
    } else if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\u{:04X}", byte);
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string value_text(const Slot& slot) {
  const auto list = [](const auto& values, auto text) {
    std::vector<std::string> parts;
    for (const auto& value : values) parts.push_back(text(value));
    return fmt::format("[{}]", fmt::join(parts, ", "));
  };
  return std::visit(
      Overloaded{[](std::monostate) { return std::string(); },
                 [](const bool* value) { return std::string(*value ? "true" : "false"); },
                 [](const double* value) { return real_text(*value); },
                 [](const std::string* value) { return in_quotes(*value); },
                 [](const std::optional<int>* value) { return *value ? fmt::format("{}", **value) : std::string(); },
                 [](RopeType type) { return std::string(*type.scaling ? "\"yarn\"" : ""); },
                 [&](const std::vector<std::string>* value) { return list(*value, in_quotes); },
                 [&](const std::vector<double>* value) { return list(*value, real_text); },
                 [](const auto* value) { return fmt::format("{}", *value); }},
      slot);
}

std::string nearest(const std::string& name, const std::vector<std::string>& candidates) {
  std::string best;
  std::size_t fewest = std::max<std::size_t>(3, name.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    // The right key under the wrong table is one edit away.
    const std::size_t distance = std::min(edits(name, candidate), edits(last_part(name), last_part(candidate)) + 1);
    if (distance >= fewest) continue;
    fewest = distance;
    best = candidate;
  }
  return best;
}

}  // namespace troupe
