#include <fmt/format.h>

#include "launcher/forecast/published.h"

namespace troupe {

namespace {

std::string step_text(const char* name, const CheckedStep& step) {
  const RankTime& rank = step.pipe.ranks[0];
  return fmt::format("  {:<22}{:>7.2f}{:>9.2f}{:>9.2f}{:>10.2f}{:>9.2f}{:>11.2f}{:>9.3f}{:>+9.1f} %\n", name,
                     rank.forward, rank.bubble, rank.backward, rank.weights, rank.together, step.optimizer,
                     step.total(), 100 * step.error());
}

std::string bill_text(const PublishedBill& bill) {
  std::string text = fmt::format("\n{}; assumed, as both reports do: ${:g} a GPU-hour rented\n  {:<34}{:>12}{:>12}\n",
                                 bill.name, bill.dollars_per_hour, "", "GPU-hours", "published");
  for (const BillRow& row : bill.rows) {
    text += fmt::format("  {:<34}{:>12.0f}{:>12.0f}\n", row.name, row.gpu_hours, row.published_hours);
    for (const std::string& assumption : row.assumptions) text += fmt::format("      {}\n", assumption);
  }
  return text + fmt::format("  {:<34}{:>12}{:>12}   {:+.1f} %\n", "all", fmt::format("${:.0f}", bill.dollars()),
                            fmt::format("${:.0f}", bill.published_dollars),
                            100 * (bill.dollars() / bill.published_dollars - 1));
}

std::string rollouts_text(const ModelConfig& model) {
  std::string text = fmt::format(
      "\nwhat R1-Zero's 198 hours on 512 GPUs imply, were its answers so long in the mean (no length is published)\n"
      "  {:>8}{:>12}{:>14}{:>14}{:>16}{:>22}\n",
      "tokens", "all tokens", "training h", "scoring h", "left: rollout h", "tokens/s a GPU then");
  for (const RolloutRow& row : r1_rollouts(model, {2048, 4096, 8192, 12288, 16384}))
    text +=
        fmt::format("  {:>8.0f}{:>10.1f} G{:>14.1f}{:>14.1f}{:>16.0f}{:>22.0f}\n", row.answer_tokens, row.tokens * 1e-9,
                    row.train_hours, row.score_hours, row.rollout_hours, row.decode_tokens_per_second);
  return text +
         "  assumed: the pre-training's MFU, two forwards for scores, nothing beside each other, 10,400 steps of 512\n";
}

}  // namespace

std::string describe_published(const ModelConfig& model, const HardwareConfig& hardware) {
  const PublishedStep step;
  ModelConfig main = model;
  main.num_nextn_predict_layers = 0;
  const double flops = causal_flops_per_token(main, step.sequence_tokens);
  std::string text = fmt::format(
      "operations a token, causal, 4,096 tokens: {:.1f} G; at {:.1f} G tokens a day on {} GPUs of {:.1f} TFLOPS that "
      "is "
      "an MFU of {:.2f} % (published {:.2f} %)\n\na step of DualPipe, run in order, seconds of rank 0\n"
      "  {:<22}{:>7}{:>9}{:>9}{:>10}{:>9}{:>11}{:>9}\n",
      flops * 1e-9, step.tokens_per_day * 1e-9, step.gpus, step.peak_flops * 1e-12,
      100 * step.tokens_per_day / 86400 / step.gpus * flops / step.peak_flops, 100 * step.mfu, "", "1F", "bubble", "1B",
      "1W", "1F1B", "optimizer", "step");
  text += fmt::format("  {:<22}{:>7.2f}{:>9.2f}{:>9.2f}{:>10.2f}{:>9.2f}{:>11.2f}{:>9.3f}\n", "published", step.forward,
                      step.bubble, step.backward, step.weights, step.together, step.optimizer, step.seconds);
  text += step_text("chunks as published", calibrated_step(step));
  text += step_text("from rates alone", step_by_rates(model, hardware, step));
  return text + bill_text(v3_bill(main)) + bill_text(r1_bill()) + rollouts_text(main);
}

}  // namespace troupe
