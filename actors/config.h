// Config: a run as a value. One struct a table of the configuration file; launcher/config.cc reads it, checks every
// range, and names file, line and key when something is wrong. Keys are the TOML keys, letter for letter.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/model/config.h"
#include "kernels/model/parameters.h"

namespace troupe {

struct TrainConfig {          // [train]
  std::int64_t steps = 1000;  // 1..
  std::uint64_t seed = 1;
  int batch_sequences = 16;       // sequences in the global batch
  int sequence_length = 128;      // tokens
  int microbatches = 4;           // must divide batch_sequences
  int gradient_lanes = 1;         // power of two dividing microbatches; part of the numbers
  std::string dtype = "float32";  // float32, bfloat16, fp8
  bool fp8_attention = false;     // in fp8 attention's projections read E4M3 too
  bool recompute = false;         // recompute a layer's activations in its backward
  std::string optimizer = "adamw";
  double learning_rate = 3e-3;
  std::string schedule = "cosine";  // cosine, wsd, constant
  int warmup_steps = 0;
  double minimum_ratio = 0.1;   // final learning rate / peak
  double decay_fraction = 0.2;  // wsd: last part of the steps that decays
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0.1;
  double clip_norm = 1.0;          // 0: no clipping
  double bias_update_rate = 1e-3;  // gamma of the router bias; 0: frozen
  double mtp_loss_weight = 0.3;
  std::string non_finite = "skip";        // skip, stop
  double spike_factor = 0;                // loss above this many times its running mean is a spike; 0: off
  std::string spike = "skip";             // skip, stop
  int skips_max = 10;                     // in a row; then stop
  std::string initialization = "scaled";  // scaled, normal
  double initializer_range = 0.006;
  std::string start_from;                     // Hugging Face directory or a run's checkpoint; empty: from the seed
  std::string trainable = "all";              // all, experts: only those of `experts` learn, everything else is frozen
  std::vector<std::string> experts;           // "LAYER.EXPERT"; with a threshold and none yet: chosen before the run
  double experts_threshold = 0;               // of a layer's routing, that its chosen experts together reach; 0: named
  std::string experts_score = "token";        // token: share of the tokens' choices
  std::int64_t experts_sample_tokens = 8192;  // of training data, to choose by
};

struct DataConfig {                         // [data]
  std::string kind = "text";                // text, jsonl, chat, arithmetic, task, random
  std::vector<std::string> files;           // text, jsonl or tokens, by suffix when mixed
  std::vector<double> weights;              // mixing weights, one a file; empty: by size
  double held_out = 0.1;                    // last part of every file
  std::string tokenizer = "bytes";          // or a tokenizer.json, or the folder that holds it
  std::string chat_template = "plain";      // data.template: plain, r1
  std::string long_examples = "drop";       // of chat, longer than a sequence: refuse, drop, truncate
  std::string text_key = "text";            // of JSONL objects
  bool mask_documents = false;              // attention and targets stay within a document; positions restart
  std::string licence;                      // told to the manifest
  int arithmetic_digits = 3;                // operands have 1..this many digits
  std::string arithmetic_operations = "+";  // any of + - *
};

struct TaskConfig {                  // [task]: problems with answers that can be verified
  std::vector<std::string> names;    // arithmetic, reverse, sort, countdown, jsonl: in turns; empty: none
  int level_min = 1, level_max = 3;  // digits of the larger operand, digits of the string, numbers of a countdown
  std::string operations = "+";      // arithmetic: any of + - *
  int number_max = 20;               // countdown: numbers are 1..this
  int target_max = 60;               // countdown: targets are 1..this
  std::vector<std::string> files;    // jsonl
  std::string prompt_key = "question", answer_key = "answer";  // jsonl: GSM8K's
  std::string form = "plain";  // key "template": plain (a few characters), r1 (<think> and <answer>)
  double corrupt = 0;          // share of training solutions that are written wrong: a weak cold start
};

struct JudgeConfig {                // [judge]: who scores an answer, and within which limits
  std::string command;              // of a shell: a request line in, a verdict line out; empty: built-in verification
  int processes = 2;                // that judge at once
  int cpu_seconds = 5;              // of one command
  int wall_seconds = 20;            // of one request; then its judge counts as hung
  int memory_mib = 512;             // address space of each process of a command
  int file_mib = 16;                // largest file that a command may write
  int processes_max = 32;           // of one command, threads included
  int output_kib = 64;              // longest output of a command
  int retries_max = 3;              // of a request whose judge died or hung
  double format_reward = 0;         // added for <think>...</think><answer>...</answer>
  std::string on_failure = "stop";  // stop, zero: what a request does that no retry could save
};

struct EvaluateConfig {               // [evaluate]
  int every_steps = 0;                // 0: only at the end
  std::int64_t tokens_max = 0;        // held-out tokens a time during training; 0: all
  int exact_match_problems = 512;     // arithmetic: greedy answers at the end; 0: none
  int problems = 0;                   // held-out problems of [task] answered each time; 0: none
  std::string split = "held_out";     // held_out, train: which problems
  int samples = 4;                    // answers to each at `temperature`, beside the greedy one
  double temperature = 1, top_p = 1;  // of those answers
};

struct BudgetConfig {  // [budget]: the first that is reached ends the phase; the learning rate never bends to it
  std::int64_t max_steps = 0;   // 0: no limit, as of the others
  std::int64_t max_tokens = 0;  // trained
  double max_hours = 0;         // of wall time, all runs of the phase together
  double max_cost = 0;          // dollars, likewise
  double until_accuracy = 0;    // share of right answers to held-out problems
};

struct CheckpointConfig {  // [checkpoint]
  int every_steps = 0;     // 0: only at the end
  int keep_last = 2;
  bool keep_best = true;
};

struct LayoutConfig {  // [layout]
  int nodes = 1, replicas = 1, stages = 1, expert_shards = 1;
  int slots = 0;                             // microbatches in flight per stage; 0: stages + 3; at most a replica's
  int chunk_rows_max = 1024;                 // rows in one expert chunk
  int chunk_credits = 2;                     // chunks in flight per (stage, shard, layer, direction)
  int sums_elements_max = 32 * 1024 * 1024;  // of a gradient, in one message between twins
  bool shards_in_blocks = false;   // neighbouring shards share a node, where there are more than nodes; else in turns
  double stash_factor = 1.5;       // expert stash: times the mean rows of the slots in flight; 0: none
  std::string transport = "auto";  // auto, shm, tcp, ib, any
  std::string interface;
  std::string device_transport = "auto";  // auto, ucx, nccl, host: how what only ops read leaves a GPU
  int spin_us = 100;  // a loop looks for frames so long before it sleeps, beside an idle compute thread and core
};

struct DeviceConfig {              // [device]
  std::string kind = "auto";       // auto, cpu, cuda
  std::string products = "wgmma";  // wgmma, mma, cublaslt
  int threads = 0;                 // compute threads of a node; 0: cores / nodes, at least 1
  int staged_kib_min = 64;         // of what a GPU's copy engines bring and take between nodes; 0: kernels do
  std::string hardware = "cpu";    // file in configs/hardware (or a path): peak rates, price
};

// configs/hardware/NAME.toml. A device is what a node computes with: a GPU, or some threads of a processor. 0: not told;
// only `troupe plan --cluster` asks for what has no default.
struct HardwareConfig {
  std::string name = "cpu", source, date;
  double float32_gflops = 112, bfloat16_gflops = 112, fp8_gflops = 112;  // peak per compute thread
  double memory_gbytes_per_second = 20;                                  // per compute thread
  int compute_threads = 1;                                               // of a device; a GPU counts as one
  double dollars_per_hour = 0.1;                                         // of one node with all its threads; of one GPU
  double product_share = 0.6, memory_share = 0.8;  // of the peaks, that a model's products and copies reach
  double memory_gbytes = 0, host_gbytes = 0;       // of a device, and its part of the host's
  int devices_per_machine = 1;
  double inside_gbytes_per_second = 0, inside_latency_us = 0;    // of a device, one way, to others in its machine
  double between_gbytes_per_second = 0, between_latency_us = 0;  // and to other machines
  double spot_dollars_per_hour = 0, preemptions_per_hour = 0;    // of a device that may be taken away
  std::vector<std::string> vendor, measured, assumed;            // which figures are whose
};

struct LaunchConfig {       // [launch]: processes on other machines
  std::string ports = "0";  // where the launcher listens for them: "PORT", "FIRST-LAST"; 0: any
};

struct SlurmConfig {  // [slurm]: what `troupe launch --on slurm` asks of sbatch; empty: Slurm's default
  std::string partition, account, time, gres, constraint;
  int processes_per_node = 1;
  int signal_seconds = 120;        // before the time is up: the run is saved, and queued again
  std::vector<std::string> lines;  // more of the script, before its command: "#SBATCH ...", "module load ..."
};

struct LimitsConfig {  // [limits]
  int heartbeat_ms = 500, silence_ms = 20000, start_seconds = 60, stall_seconds = 60;
};

struct InspectConfig {               // [inspect]
  int journal_mib = 16;              // of a node's last messages, segments and waits; 0: no journal
  int journals_kept = 4;             // of a node: one a process
  std::string listen = "127.0.0.1";  // where the nodes' inspector threads answer; empty: nowhere
};

struct LinkConfig {             // [link]: for measuring what a slow network would cost
  double delay_ms = 0;          // one way, between any two nodes, on top of the real one
  double gbits_per_second = 0;  // each way between two nodes; 0: no limit
};

struct RecoveryConfig {   // [recovery]
  int copies = 1;         // of every state, in another node's memory; 0: after a loss from the last checkpoint
  int restarts_max = 10;  // of nodes without a committed step between; then the run ends
};

struct GrpoConfig {                         // [grpo]: group-relative policy optimization
  int group_size = 8;                       // samples of a prompt; divides train.batch_sequences
  int rollout_lag = 0;                      // step n learns from samples of version max(0, n - rollout_lag), exactly
  int updates_per_rollout = 1;              // optimizer steps that share the samples of one rollout
  double temperature = 1, top_p = 1;        // of sampling, and of every log-probability
  int completion_max = 0;                   // tokens of an answer, its end included; 0: what the sequence leaves
  double clip_low = 0.2, clip_high = 0.2;   // the ratio is held within 1 - clip_low .. 1 + clip_high
  double dual_clip = 0;                     // bound of the ratio where the advantage is negative; 0: none
  double importance_max = 2;                // with a lag: the most that a sample of an older version weighs
  double beta = 0;                          // weight of the divergence from the reference policy (k3)
  int reference_every = 0;                  // steps after which the reference becomes the policy; 0: never
  std::string reduction = "sequence_mean";  // sequence_mean, token_mean, constant
  bool scale_by_std = true;
  double advantage_epsilon = 1e-4;
  int std_ddof = 1;
  bool dynamic_sampling = false;  // groups whose rewards are all equal are passed over
  int sampling_rounds_max = 4;    // rounds of prompts for a rollout with dynamic sampling
  int overlong_tokens = 0;        // the last so many tokens of an answer are punished, up to -1; 0: none
};

struct DistillConfig {     // [distill]: what a teacher answered right, for a student to learn from
  std::string teacher;     // a phase before this one, or a folder of weights; empty: the phase before
  int problems = 1024;     // of the training split
  int samples = 4;         // answers to each
  int keep = 1;            // right answers kept of each problem, at most
  double temperature = 1;  // of sampling
};

struct GenerateConfig {    // [generate]
  int sequences_max = 64;  // decoded together
  int length_max = 0;      // prompt + answer; 0: train.sequence_length
};

struct Config {
  std::string name = "run";       // the run's folder is runs/NAME unless told
  std::string kind = "pretrain";  // of phase: pretrain, sft, grpo, evaluate, distill
  ModelConfig model;              // [model]
  TrainConfig train;
  DataConfig data;
  TaskConfig task;
  JudgeConfig judge;
  EvaluateConfig evaluate;
  BudgetConfig budget;
  CheckpointConfig checkpoint;
  LayoutConfig layout;
  DeviceConfig device;
  LinkConfig link;
  InspectConfig inspect;
  LaunchConfig launch;
  SlurmConfig slurm;
  LimitsConfig limits;
  RecoveryConfig recovery;
  GenerateConfig generate;
  GrpoConfig grpo;
  DistillConfig distill;
  HardwareConfig hardware;  // read from device.hardware

  // Activations, and the weights that products read, are bfloat16; in FP8 too, where products round them on.
  bool is_mixed() const { return train.dtype != "float32"; }
  bool is_fp8() const { return train.dtype == "fp8"; }
  bool is_fp8_attention() const { return is_fp8() && train.fp8_attention; }
  double peak_gflops() const {
    return is_fp8() ? hardware.fp8_gflops : is_mixed() ? hardware.bfloat16_gflops : hardware.float32_gflops;
  }
  int microbatch_sequences() const { return train.batch_sequences / train.microbatches; }
  int microbatch_rows() const { return microbatch_sequences() * train.sequence_length; }
  int generate_length() const { return generate.length_max > 0 ? generate.length_max : train.sequence_length; }
  bool has_rollouts() const { return kind == "grpo"; }
  bool has_reference() const { return has_rollouts() && grpo.beta > 0; }
  bool has_answers() const { return evaluate.problems > 0 && !task.names.empty(); }
  // Expert-specialized fine-tuning; and its experts are still to be chosen.
  bool has_frozen() const { return train.trainable == "experts"; }
  bool chooses_experts() const { return has_frozen() && train.experts.empty() && train.experts_threshold > 0; }
  // The router's bias and the balance loss shape the experts while a model learns its data; in reinforcement they rest.
  // The bias of a frozen router does not move.
  double bias_rate() const { return has_rollouts() || has_frozen() ? 0 : train.bias_update_rate; }
  double balance_alpha() const { return has_rollouts() ? 0 : model.aux_loss_alpha; }
  // Batches of generation under way in a replica: every thread of every stage has one. Where training goes on beside
  // them they have slots of their own.
  int generate_batches() const {
    const int wanted = layout.stages * (device.threads > 0 ? device.threads : 1);
    return generate_slots() > 0 || wanted < slots() ? wanted : slots();
  }
  int generate_slots() const {
    if (!has_rollouts() || grpo.rollout_lag == 0) return 0;
    return layout.stages * (device.threads > 0 ? device.threads : 1);
  }
  bool truncates() const { return has_rollouts() && grpo.top_p < 1; }
  // 32 tokens a word: which of them sampling kept. 0: it keeps all, and says nothing of it.
  int kept_words() const { return truncates() ? (model.vocab_size + 31) / 32 : 0; }
  int answer_tokens_max() const { return grpo.completion_max > 0 ? grpo.completion_max : generate_length(); }
  int slots() const {
    const int wanted = layout.slots > 0 ? layout.slots : layout.stages + 3;
    const int own = train.microbatches / layout.replicas;
    return wanted < own ? wanted : own;
  }
};

}  // namespace troupe
