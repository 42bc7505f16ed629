// What DeepSeek published of V3's and R1's runs, and the same figures from the forecast's formulas: how far to trust it.
// Sources: V3 = arXiv 2412.19437, Insights = arXiv 2505.09343, R1 = arXiv 2501.12948v2, appendix B.
#pragma once

#include <string>
#include <vector>

#include "launcher/forecast/dualpipe.h"
#include "launcher/forecast/work.h"

namespace troupe {

// Insights, table 4: 2,048 H800, a step of 15,360 sequences of 4,096 tokens. Seconds of rank 0.
struct PublishedStep {
  double seconds = 19.926, forward = 1.13, bubble = 2.06, backward = 1.99, weights = 0.48, together = 13.95,
         optimizer = 0.29;
  double tokens_per_day = 272.80e9, mfu = 0.3894, peak_flops = 989.5e12;  // bfloat16, dense
  int gpus = 2048, ranks = 16, microbatches = 120, expert_ways = 64, sequence_tokens = 4096;
};

// Seconds of a chunk so that rank 0's ops sum to the published rows.
ChunkSeconds calibrated(const PublishedStep& step);
// The same from rates alone: products, memory and links of the hardware file. The busy kernels have 112 of 132
// multiprocessors (20 carry messages, V3 section 3.2.2); rows go to 3.18 other machines in the mean (8 experts in at
// most 4 of 8 groups), there in FP8 and back in bfloat16; a lone chunk waits for them, two together hide them.
ChunkSeconds chunk_seconds(const ModelConfig& model, const HardwareConfig& hardware, const PublishedStep& step);
// Gradients summed in float32 and weights shared in bfloat16 over the network, and AdamW's pass over its part.
double optimizer_seconds(const ModelConfig& model, const HardwareConfig& hardware, const PublishedStep& step);

struct CheckedStep {
  PipeTime pipe;
  double optimizer = 0, published = 0;
  double total() const { return pipe.seconds + optimizer; }
  double error() const { return total() / published - 1; }
};
CheckedStep calibrated_step(const PublishedStep& step);
CheckedStep step_by_rates(const ModelConfig& model, const HardwareConfig& hardware, const PublishedStep& step);

struct BillRow {
  std::string name;
  double gpu_hours = 0, published_hours = 0;
  std::vector<std::string> assumptions;
};
struct PublishedBill {
  std::string name;
  double dollars_per_hour = 2, published_dollars = 0;
  std::vector<BillRow> rows;
  double dollars() const;
};
// REQUIRES: the model is V3's, without multi-token prediction.
PublishedBill v3_bill(const ModelConfig& model);
PublishedBill r1_bill();

// R1-Zero's hours, if its answers had so many tokens in the mean: 10,400 steps of 512 answers on 512 GPUs for 198 hours.
struct RolloutRow {
  double answer_tokens = 0, tokens = 0;                        // of an answer; of all
  double train_hours = 0, score_hours = 0, rollout_hours = 0;  // wall; rollout: what is left
  double decode_tokens_per_second = 0;                         // of a GPU, that fills what is left
  double rollout_share = 0;
};
std::vector<RolloutRow> r1_rollouts(const ModelConfig& model, const std::vector<double>& answer_tokens);

// All of it as text, for V3's shape.
std::string describe_published(const ModelConfig& model, const HardwareConfig& hardware);

}  // namespace troupe
