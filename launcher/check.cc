// `troupe check FIXTURE --out FILE`: runs a fixture folder (its README names the tensors) through the production
// actors: the forward pass of batch 0, its gradients, three optimizer steps, and greedy decoding with a key-value
// cache.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "actors/checkpoint/manifest.h"
#include "actors/checkpoint/safetensors.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "launcher/config.h"
#include "launcher/machine.h"
#include "launcher/tools.h"
#include "launcher/whole_file.h"
#include "launcher/world.h"

namespace troupe {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

json read_json(const std::string& path) {
  if (!fs::exists(path))
    throw Error("{}: can't be read; is {} a fixture folder?", path, fs::path(path).parent_path().string());
  return read_json_file(path);
}

// input_ids and labels (S, B, T): one global batch a step; the held-out part is batch 0.
class FixtureCorpus final : public Corpus {
 public:
  FixtureCorpus(const Config& config, std::vector<std::int64_t> ids, std::vector<std::int64_t> labels)
      : config_(config), ids_(std::move(ids)), labels_(std::move(labels)) {}
  Batch train(std::int64_t step, std::int32_t microbatch) const override {
    const int sequences = config_.microbatch_sequences(), length = config_.train.sequence_length;
    const std::int64_t begin =
        (step * config_.train.batch_sequences + static_cast<std::int64_t>(microbatch) * sequences) * length;
    const std::int64_t count = static_cast<std::int64_t>(sequences) * length;
    const auto cut = [&](const std::vector<std::int64_t>& all) {
      return std::vector<std::int32_t>(all.begin() + begin, all.begin() + begin + count);
    };
    return make_batch(sequences, length, cut(ids_), cut(labels_),
                      std::vector<std::vector<std::int32_t>>(static_cast<std::size_t>(sequences), {0}), false);
  }
  std::int32_t held_out_microbatches(std::int64_t) const override { return config_.train.microbatches; }
  Batch held_out(std::int32_t microbatch) const override { return train(0, microbatch); }
  std::vector<Provenance> provenance() const override { return {{"fixture", "", "", 0}}; }
  std::size_t bytes() const override { return (ids_.size() + labels_.size()) * 8; }

 private:
  const Config& config_;
  std::vector<std::int64_t> ids_, labels_;
};

// A run's folder for as long as the check lasts, however it ends.
struct ScratchFolder {
  std::string path = (fs::temp_directory_path() / fmt::format("troupe-check-{}", getpid())).string();
  ScratchFolder() { fs::create_directories(path + "/checkpoints"); }
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
};

struct Check {
  CheckOptions options;
  Config config;
  ScratchFolder scratch;
  SafetensorsWriter out;
  std::shared_ptr<const Corpus> corpus;

  explicit Check(CheckOptions given) : options(std::move(given)) {}
  void load();
  void run(WorldOptions world_options, int steps, const std::function<void(const json&)>& hear,
           const std::function<bool()>& done);
  void balance(const Capture& capture);
  void logits();
  void steps();
  void greedy();
  void add(const std::string& name, const Capture::Values& values);
};

void Check::load() {
  const std::string& dir = options.fixture;
  const json train = read_json(dir + "/train.json");
  const SafetensorsReader inputs(dir + "/inputs.safetensors");
  const auto shape = inputs.entries().at("input_ids").shape;
  config.model = model_config_from_json(read_json(dir + "/config.json"));
  TrainConfig& t = config.train;
  t.steps = shape.at(0);
  t.batch_sequences = static_cast<int>(shape.at(1));
  t.sequence_length = static_cast<int>(shape.at(2));
  t.microbatches = 1;
  t.learning_rate = train.at("lr");
  t.schedule = "constant";
  t.beta1 = train.at("beta1");
  t.beta2 = train.at("beta2");
  t.epsilon = train.at("eps");
  t.weight_decay = train.at("weight_decay");
  t.clip_norm = train.at("clip");
  t.bias_update_rate = train.at("gamma");
  t.mtp_loss_weight = train.at("mtp_loss_weight");
  config.data.kind = "none";  // unused: the fixture brings its tokens
  config.evaluate.exact_match_problems = 0;
  config.generate.sequences_max = t.batch_sequences;
  config = config_from_text(config_to_toml(config), dir, options.sets);
  if (config.layout.nodes != 1)
    throw Error("layout.nodes is {}, must be 1: a check runs in one process; try layout.stages, layout.expert_shards",
                config.layout.nodes);
  resolve_machine(config);
  corpus = std::make_shared<FixtureCorpus>(config, inputs.read_i64("input_ids"), inputs.read_i64("labels"));
}

void Check::run(WorldOptions world_options, int steps, const std::function<void(const json&)>& hear,
                const std::function<bool()>& done) {
  Config own = config;
  own.train.steps = steps;
  world_options.corpus = corpus;
  world_options.run_folder = scratch.path;
  World world(own, world_options);
  Recover begin;
  begin.path = options.weights.empty() ? options.fixture : options.weights;
  begin.weights_only = true;
  world.recover(begin);
  world.run([&](const Report& report) { hear(json::parse(report.json)); }, done);
}

void Check::add(const std::string& name, const Capture::Values& values) {
  if (!values.f32.empty()) out.add_f32(name, values.shape, values.f32.data());
  if (!values.i64.empty()) out.add_i64(name, values.shape, values.i64.data());
}

// The sequence-wise balance loss of the captured routing, summed over layers: from each sequence's K largest raw
// scores, and, for information, from the experts really chosen.
void Check::balance(const Capture& capture) {
  double literal = 0, chosen = 0;
  bool any = false;
  for (const auto& [name, scores] : capture.values) {
    if (!name.starts_with("router.") || !name.ends_with(".scores")) continue;
    any = true;
    const auto& indices = capture.values.at(name.substr(0, name.size() - 6) + "topk_indices");
    const auto experts = static_cast<std::size_t>(scores.shape[1]), k = static_cast<std::size_t>(indices.shape[1]);
    const auto rows = static_cast<std::size_t>(scores.shape[0] / config.microbatch_sequences());
    for (std::size_t begin = 0; begin < static_cast<std::size_t>(scores.shape[0]); begin += rows) {
      std::vector<double> share(experts), best(experts), taken(experts);
      for (std::size_t t = begin; t < begin + rows; ++t) {
        const float* s = scores.f32.data() + t * experts;
        const double sum = std::accumulate(s, s + experts, 0.0);
        std::vector<std::size_t> order(experts);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return s[a] > s[b]; });
        for (std::size_t e = 0; e < experts; ++e)
          share[e] += static_cast<double>(s[e]) / sum / static_cast<double>(rows);
        for (std::size_t i = 0; i < k; ++i) {
          best[order[i]] += 1;
          taken[static_cast<std::size_t>(indices.i64[t * k + i])] += 1;
        }
      }
      const double scale = static_cast<double>(experts) / static_cast<double>(k * rows) / config.microbatch_sequences();
      literal += scale * std::inner_product(best.begin(), best.end(), share.begin(), 0.0);
      chosen += scale * std::inner_product(taken.begin(), taken.end(), share.begin(), 0.0);
    }
  }
  if (!any || config.train.microbatches > 1) return;  // a capture holds one microbatch
  const auto first = static_cast<float>(literal), second = static_cast<float>(chosen);
  out.add_f32("balance_loss", {}, &first);
  out.add_f32("balance_loss_selected", {}, &second);
}

void Check::logits() {
  Capture capture;
  WorldOptions world_options;
  world_options.mode = RunMode::evaluate;
  world_options.capture = &capture;
  run(
      world_options, 0, [](const json&) {}, [] { return false; });
  add("logits", capture.values.at("logits"));
}

void Check::steps() {
  Capture capture;
  WorldOptions world_options;
  world_options.capture = &capture;
  std::vector<float> loss, total, norm;
  run(
      world_options, static_cast<int>(config.train.steps),
      [&](const json& r) {
        if (r.at("kind") != "step") return;
        loss.push_back(r.at("loss"));
        total.push_back(r.at("total_loss"));
        norm.push_back(r.at("gradient_norm"));
        if (loss.size() > 1) return;
        capture.forward = capture.gradients = false;
        const auto scalar = [&](const char* name, const char* key) {
          const float value = r.at(key);
          out.add_f32(name, {}, &value);
        };
        scalar("loss", "loss");
        scalar("total_loss", "total_loss");
        if (config.model.has_mtp()) scalar("mtp_loss", "mtp_loss");
      },
      [] { return false; });
  balance(capture);
  for (const auto& [name, values] : capture.values)
    if (name != "logits") add(name, values);
  const auto count = static_cast<std::int64_t>(loss.size());
  out.add_f32("step.loss", {count}, loss.data());
  out.add_f32("step.total_loss", {count}, total.data());
  out.add_f32("step.grad_norm", {count}, norm.data());
  const SafetensorsReader trained(resolve_checkpoint(scratch.path));
  for (const auto& [name, entry] : trained.entries()) {
    std::vector<float> values(static_cast<std::size_t>(entry.elements()));
    trained.read_f32(name, 0, entry.elements(), values.data());
    out.add_f32("after3." + name, entry.shape, values.data());
  }
}

void Check::greedy() {
  const std::string path = options.fixture + "/greedy.safetensors";
  if (!fs::exists(path)) return;
  const SafetensorsReader expected(path);
  const auto prompts = expected.read_i64("prompt"), answers = expected.read_i64("generated");
  const auto shape = expected.entries().at("prompt").shape, answer_shape = expected.entries().at("generated").shape;
  GenerationResult result;
  WorldOptions world_options;
  world_options.mode = RunMode::generate;
  world_options.sink = &result;
  for (std::int64_t b = 0; b < shape[0]; ++b)
    world_options.request.prompts.emplace_back(prompts.begin() + b * shape[1], prompts.begin() + (b + 1) * shape[1]);
  world_options.request.tokens_max = static_cast<int>(answer_shape[1]);
  world_options.request.want_logits = true;
  config.generate.length_max = static_cast<int>(shape[1] + answer_shape[1]) + 1;
  config.generate.sequences_max = static_cast<int>(shape[0]);
  run(
      world_options, 0, [](const json&) {}, [&] { return result.done; });
  std::vector<std::int64_t> generated;
  std::vector<float> step_logits;
  for (std::size_t b = 0; b < result.tokens.size(); ++b) {
    generated.insert(generated.end(), result.tokens[b].begin(), result.tokens[b].end());
    step_logits.insert(step_logits.end(), result.logits[b].begin(), result.logits[b].end());
  }
  out.add_i64("generated", answer_shape, generated.data());
  out.add_f32("step_logits", {answer_shape[0], answer_shape[1], config.model.vocab_size}, step_logits.data());
  if (!options.weights.empty()) return;
  const bool same = generated == answers;
  std::printf("greedy decoding: %s\n", same ? "the expected tokens" : "NOT the expected tokens");
}

}  // namespace

int check(const CheckOptions& options) {
  start_log("troupe", "", LogLevel::warning);
  if (is_grpo_fixture(options.fixture)) return check_grpo(options);
  Check check(options);
  check.load();
  check.logits();
  if (options.weights.empty()) check.steps();
  check.greedy();
  check.out.write(options.out);
  std::printf("wrote %s\n", options.out.c_str());
  return 0;
}

}  // namespace troupe
