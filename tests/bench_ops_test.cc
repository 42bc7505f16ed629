// `troupe bench ops`: it times what a training step does, and tells figures.
#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

#include "actors/data/corpus.h"
#include "kernels/base/log.h"
#include "launcher/bench_model.h"
#include "launcher/config.h"
#include "launcher/machine.h"
#include "launcher/world.h"
#include "tests/support/run.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;

namespace {

const std::string kTiny = TROUPE_SOURCE_DIR "/configs/tiny.toml";

// "forward Product 16 32": kind, phase and shape.
std::set<std::string> names_of(const OpProfile& profile) {
  std::set<std::string> names;
  for (const auto& [key, time] : profile.times())
    if (key.phase != SegmentClass::evaluate)
      names.insert(fmt::format("{} {} {} {}", to_string(key.phase), op_name(key.kind), key.depth, key.cols));
  return names;
}

// Of the last of some training steps.
std::set<std::string> trained(const Config& config) {
  WorldOptions options;
  options.corpus = open_corpus(config);
  options.profiled = true;
  start_log("troupe", "", LogLevel::warning);
  World world(config, options);
  world.recover({});
  std::set<std::string> names;
  world.run([&](const Report& report) {
    if (report.kind != "step") return;
    names = names_of(world.op_profile());
    world.clear_profile();
  });
  return names;
}

std::set<std::string> timed(const Config& config) {
  const auto device = open_device(config, 0, true);
  const BenchModel model(*device, config, 0);
  OpProfile profile;
  for (const BenchPart& part : model.parts(0)) {
    CHECK(part.times > 0);
    for (const Op& op : part.ops) profile.add(part.phase, op, 1);
  }
  return names_of(profile);
}

}  // namespace

TEST_CASE("there are cores enough for the nodes that share a machine, not for all of the run", "[machine]") {
  Config config;
  config.layout.nodes = 4;
  config.device.threads = usable_cores();
  CHECK_FALSE(cores_enough(config, 0));
  CHECK_FALSE(cores_enough(config, 2));
  CHECK(cores_enough(config, 1));
}

TEST_CASE("the ops that are timed are those of a training step", "[bench_ops]") {
  for (const std::vector<std::string>& changes : std::vector<std::vector<std::string>>{
           {},
           {"train.dtype=bfloat16", "model.aux_loss_alpha=0.01", "model.q_lora_rank=0"},
           {"model.tie_word_embeddings=true", "model.n_shared_experts=0"},
           {"model.model_type=qwen2", "model.num_key_value_heads=1", "model.n_routed_experts=0"},
           {"train.dtype=fp8", "layout.chunk_rows_max=128"}}) {
    INFO(nlohmann::json(changes).dump());
    std::vector<std::string> sets = {"device.kind=cpu",      "device.threads=1",       "train.steps=3",
                                     "data.kind=random",     "train.gradient_lanes=1", "evaluate.every_steps=0",
                                     "evaluate.tokens_max=1"};
    sets.insert(sets.end(), changes.begin(), changes.end());
    Config config = load_config(kTiny, sets);
    resolve_machine(config);
    const auto is = timed(config), must_be = trained(config);
    std::set<std::string> differ;
    std::set_symmetric_difference(is.begin(), is.end(), must_be.begin(), must_be.end(),
                                  std::inserter(differ, differ.end()));
    CHECK(differ == std::set<std::string>{});
  }
}

TEST_CASE("a bench of ops tells each op's rate beside the machine's ceilings", "[bench_ops]") {
  const Folder folder;
  const std::string file = folder / "ops.json";
  const Ended ended = test::troupe({"bench", "ops", kTiny, "--device", "cpu", "--repeats", "2", "--json", file});
  INFO(ended.err);
  REQUIRE(ended.code == 0);
  CHECK(ended.out.find("ceilings") != std::string::npos);
  const nlohmann::json told = nlohmann::json::parse(read_file(file));
  CHECK(told.at("ceilings").at("product_tflops") > 0);
  CHECK(told.at("ceilings").at("copy_gbytes_per_second") > 0);
  double step_ms = 0;
  std::set<std::string> parts, ops;
  for (const auto& row : told.at("ops")) {
    parts.insert(row.at("part"));
    ops.insert(row.at("op"));
    step_ms += row.at("step_ms").get<double>();
  }
  CHECK(step_ms == Approx(told.at("step_ms").get<double>()));
  CHECK(told.at("tokens_per_second").get<double>() == Approx(8 * 32 * 1000 / step_ms));  // tiny's tokens a step
  CHECK(parts == std::set<std::string>{"dense layer", "embedding", "experts", "head", "moe layer", "optimizer",
                                       "optimizer, experts"});
  for (const char* op : {"Product", "Attention", "AttentionBackward", "Router", "Combine", "CrossEntropy", "AdamW"})
    CHECK(ops.contains(op));
}

TEST_CASE("a bench of some ops times no others, and refuses a name that no op has", "[bench_ops]") {
  const auto bench = [](const std::string& only) {
    return test::troupe({"bench", "ops", kTiny, "--device", "cpu", "--repeats", "1", "--only", only});
  };
  const Ended some = bench("attention,norm");
  CHECK(some.code == 0);
  CHECK(some.out.find("Attention") != std::string::npos);
  CHECK(some.out.find("Product") == std::string::npos);
  const Ended wrong = bench("matmul");
  CHECK(wrong.code == 1);
  CHECK(wrong.err.find("troupe: --only matmul: there is no such op, must be of Product, GroupedProduct") == 0);
  CHECK(bench("sample").err.find("this model has none of these ops") != std::string::npos);
}

TEST_CASE("a bench that can't end well is refused before it begins", "[bench_ops]") {
  const Folder folder;
  const auto refused = [](const Ended& ended, int code, const std::string& sentence) {
    INFO(ended.out << ended.err);
    CHECK(ended.code == code);
    CHECK(ended.out == "");
    CHECK(ended.err == "troupe: " + sentence + "\n");
  };
  const auto to = [](const std::string& json) {
    return test::troupe({"bench", "ops", kTiny, "--device", "cpu", "--json", json});
  };
  const std::string nowhere = folder / "nowhere", here = folder / "";
  refused(to(nowhere + "/ops.json"), 1,
          "--json " + nowhere + "/ops.json: there is no folder " + nowhere + "; make it or name another");
  refused(to(here), 1, "--json " + here + ": is a folder or a device, must be a file; name another");
  refused(test::run({"/bin/sh", "-c", "cd \"$1\" && exec \"$0\" bench ops --device cpu", TROUPE_BINARY, here}), 1,
          "there is no configs/quickstart.toml here: name a CONFIG, or go to the folder that has configs/");
  refused(test::troupe({"bench"}), 2, "bench must be followed by ops or hardware; troupe bench --help tells more");
  refused(test::troupe({"bench", "opps"}), 2,
          "bench must be followed by ops or hardware, not by opps; troupe bench --help tells more");
}
