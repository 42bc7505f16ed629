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
  std::string dtype = "float32";  // float32, bfloat16
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
  std::string start_from;  // Hugging Face directory or a run's checkpoint; empty: from the seed
};

struct DataConfig {                         // [data]
  std::string kind = "text";                // text, jsonl, chat, arithmetic
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

struct EvaluateConfig {            // [evaluate]
  int every_steps = 0;             // 0: only at the end
  std::int64_t tokens_max = 0;     // held-out tokens a time during training; 0: all
  int exact_match_problems = 512;  // arithmetic: greedy answers at the end; 0: none
};

struct CheckpointConfig {  // [checkpoint]
  int every_steps = 0;     // 0: only at the end
  int keep_last = 2;
  bool keep_best = true;
};

struct LayoutConfig {  // [layout]
  int nodes = 1, replicas = 1, stages = 1, expert_shards = 1;
  int slots = 0;                   // microbatches in flight per stage; 0: stages + 3, at most microbatches
  int chunk_rows_max = 1024;       // rows in one expert chunk
  int chunk_credits = 2;           // chunks in flight per (stage, shard, layer, direction)
  double stash_factor = 1.5;       // expert stash: times the mean rows of the slots in flight; 0: none
  std::string transport = "auto";  // auto, shm, tcp
  std::string interface;
  int spin_us = 100;  // a loop with an idle compute thread looks for frames so long before it sleeps
};

struct DeviceConfig {            // [device]
  int threads = 0;               // compute threads of a node; 0: cores / nodes, at least 1
  int record_segments = 0;       // that each thread notes for troupe timeline; 0: none
  std::string hardware = "cpu";  // file in configs/hardware (or a path): peak rates, price
};

struct HardwareConfig {  // configs/hardware/NAME.toml
  std::string name = "cpu", source;
  double float32_gflops = 112, bfloat16_gflops = 112;  // per compute thread
  double memory_gbytes_per_second = 20;
  double dollars_per_hour = 0.1;  // of one node with all its threads
};

struct LimitsConfig {  // [limits]
  int heartbeat_ms = 500, silence_ms = 20000, start_seconds = 60, stall_seconds = 60;
};

struct LinkConfig {             // [link]: for measuring what a slow network would cost
  double delay_ms = 0;          // one way, between any two nodes, on top of the real one
  double gbits_per_second = 0;  // each way between two nodes; 0: no limit
};

struct RecoveryConfig {   // [recovery]
  int copies = 1;         // of every state, in another node's memory; 0: after a loss from the last checkpoint
  int restarts_max = 10;  // of nodes without a committed step between; then the run ends
};

struct GenerateConfig {    // [generate]
  int sequences_max = 64;  // decoded together
  int length_max = 0;      // prompt + answer; 0: train.sequence_length
};

struct Config {
  std::string name = "run";  // the run's folder is runs/NAME unless told
  ModelConfig model;         // [model]
  TrainConfig train;
  DataConfig data;
  EvaluateConfig evaluate;
  CheckpointConfig checkpoint;
  LayoutConfig layout;
  DeviceConfig device;
  LinkConfig link;
  LimitsConfig limits;
  RecoveryConfig recovery;
  GenerateConfig generate;
  HardwareConfig hardware;  // read from device.hardware

  int microbatch_sequences() const { return train.batch_sequences / train.microbatches; }
  int microbatch_rows() const { return microbatch_sequences() * train.sequence_length; }
  int generate_length() const { return generate.length_max > 0 ? generate.length_max : train.sequence_length; }
  int slots() const {
    const int wanted = layout.slots > 0 ? layout.slots : layout.stages + 3;
    const int own = train.microbatches / layout.replicas;
    return wanted < own ? wanted : own;
  }
};

}  // namespace troupe
