#include "launcher/forecast/published.h"

#include <fmt/format.h>

#include <algorithm>

namespace troupe {

namespace {

constexpr double kRemoteMachines = 3.18, kBusyShare = 112.0 / 132;

int count(const std::vector<PipeOp>& ops, Chunk chunk) {
  return static_cast<int>(std::count_if(ops.begin(), ops.end(), [&](const PipeOp& op) { return op.chunk == chunk; }));
}

double moe_layers(const ModelWork& work) { return work.experts().moe_layers; }

}  // namespace

ChunkSeconds calibrated(const PublishedStep& step) {
  const std::vector<PipeOp> ops = dualpipe(step.ranks, step.microbatches)[0];
  ChunkSeconds seconds;
  seconds.forward = step.forward / count(ops, Chunk::forward);
  seconds.together = step.together / count(ops, Chunk::together);
  seconds.weights = step.weights / count(ops, Chunk::weights);
  const int whole = count(ops, Chunk::backward_whole);
  seconds.backward = (step.backward - whole * seconds.weights) / (whole + count(ops, Chunk::backward));
  seconds.backward_whole = seconds.backward + seconds.weights;
  return seconds;
}

ChunkSeconds chunk_seconds(const ModelConfig& model, const HardwareConfig& hardware, const PublishedStep& step) {
  const ModelWork work = work_of(model, step.sequence_tokens, true);
  PartWork all = work.dense();
  all += work.experts();
  // A microbatch through the mean stage; of its experts a GPU has one of expert_ways parts, and as many rows.
  const double tokens = static_cast<double>(step.sequence_tokens) / step.ranks;
  const double elements = (work.dense().elements + work.experts().elements / step.expert_ways) / step.ranks;
  const Rates rates = rates_of(hardware, "fp8");
  const double rows = moe_layers(work) / step.ranks * step.sequence_tokens * kRemoteMachines;
  const double messages = rows * model.hidden_size * (1 + 2) / (hardware.between_gbytes_per_second * 1e9);
  const double forward = forward_pass(all, tokens, elements, rates).total() / kBusyShare;
  const double backward = backward_pass(all, tokens, elements, rates).total() / kBusyShare;
  ChunkSeconds seconds;
  seconds.weights = weights_pass(all, tokens, elements, rates).total() / kBusyShare;
  seconds.forward = forward + messages;
  seconds.backward = backward + messages;
  seconds.backward_whole = seconds.backward + seconds.weights;
  seconds.together = std::max(forward + backward + seconds.weights, 2 * messages);
  return seconds;
}

double optimizer_seconds(const ModelConfig& model, const HardwareConfig& hardware, const PublishedStep& step) {
  const ModelWork work = work_of(model, step.sequence_tokens, true);
  const double lanes = static_cast<double>(step.gpus) / step.ranks;
  const double dense = 2 * work.dense().elements / step.ranks;  // two stages a GPU
  const double experts = 2 * work.experts().elements / step.ranks / step.expert_ways;
  const double owned = dense / lanes + experts * step.expert_ways / lanes;
  return dense * (4 + 2) / (hardware.between_gbytes_per_second * 1e9) +
         owned * 22 / rates_of(hardware, "fp8").memory_bytes;
}

CheckedStep calibrated_step(const PublishedStep& step) {
  return {run_in_order(dualpipe(step.ranks, step.microbatches), calibrated(step), 0), step.optimizer, step.seconds};
}

CheckedStep step_by_rates(const ModelConfig& model, const HardwareConfig& hardware, const PublishedStep& step) {
  const double message = hardware.between_latency_us * 1e-6 +
                         2.0 * step.sequence_tokens * model.hidden_size / (hardware.between_gbytes_per_second * 1e9);
  const Pipe pipe = dualpipe(step.ranks, step.microbatches);
  return {run_in_order(pipe, chunk_seconds(model, hardware, step), message), optimizer_seconds(model, hardware, step),
          step.seconds};
}

double PublishedBill::dollars() const {
  double hours = 0;
  for (const BillRow& row : rows) hours += row.gpu_hours;
  return hours * dollars_per_hour;
}

namespace {

double gpu_hours(double tokens, double flops_per_token, const PublishedStep& step) {
  return tokens * flops_per_token / (step.mfu * step.peak_flops) / 3600;
}

}  // namespace

PublishedBill v3_bill(const ModelConfig& model) {
  const PublishedStep step;
  const double short_tokens = 1000.0 * 1920 * 32768, long_tokens = 1000.0 * 480 * 131072;
  const double extension = gpu_hours(short_tokens, causal_flops_per_token(model, 32768), step) +
                           gpu_hours(long_tokens, causal_flops_per_token(model, 131072), step);
  const std::string mfu =
      fmt::format("MFU {:.2f} % of {:.1f} TFLOPS (Insights, table 4)", 100 * step.mfu, step.peak_flops * 1e-12);
  return {"DeepSeek-V3",
          2,
          5.576e6,
          {{"pre-training",
            gpu_hours(14.8e12, causal_flops_per_token(model, 4096), step),
            2664e3,
            {"14.8 T tokens in sequences of 4,096 (V3, section 4.2)", mfu, "attention counted as it is masked"}},
           {"context extension",
            extension,
            119e3,
            {"1,000 steps of 1,920 x 32K and 1,000 of 480 x 128K tokens (V3, section 4.3)", mfu,
             "the published hours are more: an MFU of about 25 % at these lengths, which no formula here foretells"}},
           {"post-training", 5e3, 5e3, {"taken as published (V3, table 1): no lengths are told"}}}};
}

PublishedBill r1_bill() {
  return {"DeepSeek-R1, without V3-Base",
          2,
          294e3,
          {{"R1-Zero",
            512.0 * 198,
            101e3,
            {"64 x 8 H800 for about 198 hours (R1, B.4.4)", "every GPU is paid for as long, busy or not"}},
           {"data for supervised fine-tuning",
            5e3,
            5e3,
            {"taken as published (R1, table 7): no number of samples or lengths is told for it"}},
           {"R1",
            512.0 * 80,
            41e3,
            {"64 x 8 H800 for about 80 hours (R1, B.4.4)", "every GPU is paid for as long, busy or not"}}}};
}

std::vector<RolloutRow> r1_rollouts(const ModelConfig& model, const std::vector<double>& answer_tokens) {
  const PublishedStep step;
  constexpr double kGpus = 512, kHours = 198, kAnswers = 10400.0 * 512;
  std::vector<RolloutRow> rows;
  for (const double length : answer_tokens) {
    RolloutRow row{.answer_tokens = length, .tokens = kAnswers * length};
    const double flops = causal_flops_per_token(model, static_cast<std::int64_t>(length));
    row.train_hours = gpu_hours(row.tokens, flops, step) / kGpus;
    row.score_hours = 2 * row.train_hours / 3;  // two forwards: the old policy's and the reference's
    row.rollout_hours = std::max(0.0, kHours - row.train_hours - row.score_hours);
    row.rollout_share = row.rollout_hours / kHours;
    if (row.rollout_hours > 0) row.decode_tokens_per_second = row.tokens / (row.rollout_hours * 3600 * kGpus);
    rows.push_back(row);
  }
  return rows;
}

}  // namespace troupe
