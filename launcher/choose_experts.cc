#include "launcher/choose_experts.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "actors/data/corpus.h"
#include "actors/rules/trainable.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "launcher/world.h"

namespace troupe {

namespace {

using nlohmann::json;

// The first training microbatches where an evaluation looks for held-out ones.
class TrainingSample final : public Corpus {
 public:
  explicit TrainingSample(const Config& config) : config_(config), all_(open_corpus(config)) {}
  Batch train(std::int64_t step, std::int32_t microbatch) const override { return all_->train(step, microbatch); }
  std::int32_t held_out_microbatches(std::int64_t) const override {
    const std::int64_t rows = config_.microbatch_rows();
    return static_cast<std::int32_t>((config_.train.experts_sample_tokens + rows - 1) / rows);
  }
  Batch held_out(std::int32_t microbatch) const override {
    return train(microbatch / config_.train.microbatches, microbatch % config_.train.microbatches);
  }
  std::vector<Provenance> provenance() const override { return all_->provenance(); }
  std::size_t bytes() const override { return all_->bytes(); }

 private:
  const Config& config_;
  std::unique_ptr<Corpus> all_;
};

// In one process. Reinforcement has no text of its own: the solutions of its training problems stand for it.
Config sampling(const Config& config) {
  Config own = config;
  own.layout = LayoutConfig{};
  if (own.has_rollouts()) own.kind = "sft", own.data.kind = "task";
  own.evaluate.problems = 0;
  return own;
}

std::vector<ExpertCounts> count_rows(const Config& config, const Recover& begin) {
  WorldOptions options;
  options.mode = RunMode::experts;
  options.corpus = std::make_shared<TrainingSample>(config);
  World world(config, options);
  world.recover(begin);
  std::vector<ExpertCounts> counts;
  world.run([&](const Report& report) {
    if (report.kind != "experts") return;
    const json said = json::parse(report.json);
    for (const json& layer : said.at("layers"))
      counts.push_back({layer.at("layer"), layer.at("counts").get<std::vector<std::int64_t>>()});
  });
  return counts;
}

}  // namespace

ChosenExperts choose_experts(const Config& config, const Recover& begin) {
  start_log("troupe", "", LogLevel::warning);
  const Config own = sampling(config);
  const std::vector<ExpertCounts> counts = count_rows(own, begin);
  ChosenExperts chosen{choose_experts(counts, config.train.experts_threshold), "", ""};
  if (chosen.names.empty()) throw Error("train.experts_threshold: no expert saw a token; is there training data?");
  Config trained = config;
  trained.train.experts = chosen.names;
  const std::int64_t parameters = parameter_count(config.model), learn = trained_parameter_count(trained);
  json layers = json::array();
  std::int64_t tokens = 0;
  for (const ExpertCounts& layer : counts) {
    std::vector<int> experts;
    std::int64_t rows = 0;
    for (const std::string& name : chosen.names) {
      const auto [number, expert] = *expert_of(name);
      if (number != layer.layer) continue;
      experts.push_back(expert);
      rows += layer.counts[static_cast<std::size_t>(expert)];
    }
    const std::int64_t all = std::accumulate(layer.counts.begin(), layer.counts.end(), std::int64_t{0});
    tokens = all / config.model.num_experts_per_tok;
    const double share = all > 0 ? static_cast<double>(rows) / static_cast<double>(all) : 0;
    layers.push_back({{"layer", layer.layer}, {"experts", experts}, {"share", share}, {"counts", layer.counts}});
    chosen.text += fmt::format("  layer {}: experts {} have {:.1f} % of its tokens' choices\n", layer.layer,
                               fmt::join(experts, ", "), share * 100);
  }
  const double percent = 100.0 * static_cast<double>(learn) / static_cast<double>(parameters);
  chosen.text = fmt::format(
      "{} training tokens choose the experts that learn ({} of every layer):\n{}"
      "  {} experts: {:.2f} M of {:.2f} M parameters ({:.1f} %); the rest is frozen\n",
      tokens, config.train.experts_threshold, chosen.text, chosen.names.size(), static_cast<double>(learn) * 1e-6,
      static_cast<double>(parameters) * 1e-6, percent);
  chosen.json = json{
      {"kind", "experts"},
      {"score", config.train.experts_score},
      {"threshold", config.train.experts_threshold},
      {"tokens", tokens},
      {"layers", layers},
      {"trained_parameters", learn},
      {"parameters",
       parameters}}.dump();
  return chosen;
}

}  // namespace troupe
