// The forecast: published runs come out as published, a schedule is run in order, layouts are legal, money adds up.
#include <array>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "kernels/base/error.h"
#include "kernels/model/parameters.h"
#include "launcher/config.h"
#include "launcher/config_keys.h"
#include "launcher/forecast/cluster_plan.h"
#include "launcher/forecast/published.h"
#include "tests/support/run.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

const std::string kConfigs = TROUPE_SOURCE_DIR "/configs/";

Config v3(const std::vector<std::string>& sets = {}) { return load_config(kConfigs + "deepseek_v3.toml", sets); }
ModelConfig v3_main() { return v3({"model.num_nextn_predict_layers=0"}).model; }
HardwareConfig hardware(const std::string& name) {
  return load_hardware(kConfigs + "hardware/" + name + ".toml").hardware;
}

// A mixture of experts that eight GPUs hold.
Config small(const std::vector<std::string>& sets = {}) {
  std::vector<std::string> all = {"layout.slots=0", "layout.chunk_rows_max=1024"};
  all.insert(all.end(), sets.begin(), sets.end());
  Config config = load_config(kConfigs + "moe_0b85.toml", all);
  config.device.threads = 1;
  return config;
}

double error(double value, double published) { return std::abs(value / published - 1); }

int count(const std::vector<PipeOp>& ops, Chunk chunk) {
  int n = 0;
  for (const PipeOp& op : ops) n += op.chunk == chunk ? 1 : 0;
  return n;
}

}  // namespace

TEST_CASE("a trained token of V3 and the published speed have the published operations and MFU", "[forecast]") {
  const double flops = causal_flops_per_token(v3_main(), 4096);
  CHECK(error(flops, 250.4e9) < 0.01);
  const PublishedStep step;
  const double mfu = step.tokens_per_day / 86400 / step.gpus * flops / step.peak_flops;
  CHECK(error(mfu, 0.3894) < 0.01);
}

TEST_CASE("a model's parts sum to its operations and to its weights", "[forecast]") {
  for (const ModelConfig& model : {v3_main(), small({"model.tie_word_embeddings=false"}).model, small().model}) {
    const ModelWork work = work_of(model, 512, false);
    CHECK(error(3 * (work.dense().flops() + work.experts().flops()), causal_flops_per_token(model, 512)) < 1e-12);
    const double matrices = work.dense().elements + work.experts().elements;
    CHECK(error(matrices, static_cast<double>(parameter_count(model))) < 1e-3);  // the rest are norms
  }
}

TEST_CASE("every rank of DualPipe does every microbatch once each way, forward, backward and weights", "[forecast]") {
  for (const auto& [ranks, microbatches] : {std::pair{16, 120}, {2, 4}, {4, 8}, {8, 20}}) {
    for (const std::vector<PipeOp>& ops : dualpipe(ranks, microbatches)) {
      for (const int way : {0, 1}) {
        int forward = 0, backward = 0;
        for (const PipeOp& op : ops) {
          forward += op.forward_way == way ? 1 : 0;
          backward += op.backward_way == way ? 1 : 0;
        }
        CHECK(forward == microbatches / 2);
        CHECK(backward == microbatches / 2);
      }
      CHECK(count(ops, Chunk::weights) == count(ops, Chunk::backward));
    }
  }
  const std::vector<PipeOp> first = dualpipe(16, 120)[0];
  CHECK(count(first, Chunk::forward) == 23);
  CHECK(count(first, Chunk::together) == 97);
  CHECK(count(first, Chunk::backward) == 15);
  CHECK(count(first, Chunk::backward_whole) == 8);
}

TEST_CASE("a schedule that is run in order takes what its longest chain takes, and each rank's time adds up",
          "[forecast]") {
  // Two ranks, one microbatch from rank 0: forward, message, forward, backward, message, backward, weights.
  const Pipe pipe = {{{Chunk::forward, 0, -1}, {Chunk::backward, -1, 0}, {Chunk::weights, -1, -1}},
                     {{Chunk::forward, 0, -1}, {Chunk::backward, -1, 0}, {Chunk::weights, -1, -1}}};
  const ChunkSeconds seconds{.forward = 1, .backward = 2, .weights = 4};
  const PipeTime time = run_in_order(pipe, seconds, 0.5);
  CHECK(time.seconds == 1 + 0.5 + 1 + 2 + 0.5 + 2 + 4);
  CHECK(time.ranks[0].bubble == 4);
  for (const RankTime& rank : run_in_order(dualpipe(8, 20), seconds, 0).ranks)
    CHECK(rank.forward + rank.together + rank.backward + rank.weights + rank.bubble ==
          Approx(run_in_order(dualpipe(8, 20), seconds, 0).seconds));
}

TEST_CASE("without messages the bubble of DualPipe is the report's", "[forecast]") {
  // F&B as long as F and B one after the other, and W a third of it: what the formula is for.
  const ChunkSeconds seconds{.forward = 1, .together = 3, .backward = 1, .backward_whole = 2, .weights = 1};
  const PipeTime time = run_in_order(dualpipe(16, 120), seconds, 0);
  CHECK(error(time.ranks[0].bubble, dualpipe_bubble(16, seconds)) < 0.1);
}

TEST_CASE("V3's step comes out within 7 % with the published chunks, and within 20 % from rates alone", "[forecast]") {
  const PublishedStep step;
  const ChunkSeconds chunks = calibrated(step);
  CHECK(error(chunks.forward, 0.0491) < 0.01);
  CHECK(error(chunks.together, 0.1438) < 0.01);
  CHECK(error(chunks.backward, 0.0754) < 0.01);
  CHECK(error(chunks.backward_whole, 0.1074) < 0.01);
  const CheckedStep measured = calibrated_step(step);
  CHECK(std::abs(measured.error()) < 0.07);
  CHECK(measured.pipe.ranks[0].together == Approx(step.together));
  const CheckedStep rates = step_by_rates(v3().model, hardware("h800"), step);
  CHECK(std::abs(rates.error()) < 0.20);
}

TEST_CASE("the bills of V3 and R1 come out within 2 %, row by row what is told", "[forecast]") {
  const PublishedBill v3_run = v3_bill(v3_main());
  CHECK(error(v3_run.dollars(), 5.576e6) < 0.02);
  CHECK(error(v3_run.rows[0].gpu_hours, 2664e3) < 0.01);
  const PublishedBill r1 = r1_bill();
  CHECK(error(r1.dollars(), 294e3) < 0.01);
  for (const PublishedBill& bill : {v3_run, r1})
    for (const BillRow& row : bill.rows) CHECK(!row.assumptions.empty());
  const std::vector<RolloutRow> rows = r1_rollouts(v3_main(), {4000, 8000, 12000, 1e6});
  CHECK(error(rows[0].decode_tokens_per_second, 62) < 0.05);
  CHECK(error(rows[2].decode_tokens_per_second, 229) < 0.05);
  CHECK(rows[3].rollout_hours == 0);
}

TEST_CASE("a checkpoint every sqrt(2 d M) seconds loses least, and losses that come too soon lose all", "[forecast]") {
  const Losses losses{.mean_seconds = between_losses(0.001, 100), .checkpoint_seconds = 30, .recovery_seconds = 300};
  CHECK(losses.mean_seconds == Approx(36000));
  CHECK(young_interval(losses) == Approx(std::sqrt(2 * 30 * 36000.0)));
  const double best = daly_interval(losses);
  for (const double times : {0.5, 0.8, 1.25, 2.0}) CHECK(lost_share(losses, best * times) > lost_share(losses, best));
  // To first order: a checkpoint in every interval, half an interval done again and a recovery at every loss.
  CHECK(lost_share(losses, best) == Approx(30 / best + (best / 2 + 300) / 36000).margin(0.005));
  CHECK(lost_share({.mean_seconds = 0, .checkpoint_seconds = 10, .recovery_seconds = 0}, 90) == Approx(0.1));
  CHECK(lost_share({.mean_seconds = 1, .checkpoint_seconds = 60, .recovery_seconds = 300}, 3600) == Approx(1));
}

TEST_CASE("runs with losses that are drawn take Daly's time in the mean, and their range lies around it",
          "[forecast]") {
  // A recovery that is often cut short by another loss, and one that never is; with checkpoints and without.
  for (const Losses& losses :
       {Losses{3600, 60, 300}, Losses{3600, 0, 1800}, Losses{36000, 600, 60}, Losses{900, 20, 200}})
    for (const double interval : {60.0, daly_interval({losses.mean_seconds, 60, 0}), 5000.0}) {
      const double work = 200 * 3600, wall = work * wall_per_work(losses, interval);
      const SpotRuns drawn = draw_spot_runs(losses, interval, work, 1);
      INFO(losses.mean_seconds << " " << losses.recovery_seconds << " " << interval << ": " << drawn.mean << " "
                               << wall);
      if (wall >= 20 * work) {
        CHECK(drawn.runs == 0);  // a run that nobody wants
        continue;
      }
      // The mean of a thousand: four of its standard errors, the deviation taken from the range, and one interval's end.
      const double deviation = (drawn.high - drawn.low) / 3.29;
      CHECK(std::abs(drawn.mean - wall) < 4 * deviation / std::sqrt(drawn.runs) + interval * wall / work);
      CHECK((drawn.low < drawn.mean && drawn.mean < drawn.high));
      CHECK(drawn.losses == Approx(wall / losses.mean_seconds).epsilon(0.02));
    }
}

TEST_CASE("drawn runs are a function of their seed, and none are drawn where nothing is lost", "[forecast]") {
  const Losses losses{3600, 60, 300};
  CHECK(draw_spot_runs(losses, 600, 36000, 1).mean == draw_spot_runs(losses, 600, 36000, 1).mean);
  CHECK(draw_spot_runs(losses, 600, 36000, 1).mean != draw_spot_runs(losses, 600, 36000, 2).mean);
  CHECK(draw_spot_runs({0, 60, 300}, 600, 36000, 1).runs == 0);
  CHECK(draw_spot_runs(losses, 600, 0, 1).runs == 0);
}

TEST_CASE("a recovery is as long as whoever simulates it says, of the layout that is best", "[forecast]") {
  ClusterLimits limits;
  LayoutConfig asked;
  limits.recovery = [&](const Config& laid) {
    asked = laid.layout;
    return 7200.0;
  };
  const Config config = small({"train.steps=1000000"});
  const Cluster cluster{hardware("h100"), 8};
  const ClusterPlan slow = plan_on(config, cluster, limits, {}), quick = plan_on(config, cluster, {}, {});
  CHECK(asked.nodes == 8);
  CHECK(asked.stages == slow.best.laid.layout.stages);
  CHECK(asked.expert_shards == slow.best.laid.layout.expert_shards);
  CHECK(slow.recovery_seconds == 7200);
  CHECK(slow.spot.front().drawn.mean > quick.spot.front().drawn.mean);
  CHECK(describe(slow, limits).find("a recovery takes 7200 s, as simulated\n") != std::string::npos);
}

TEST_CASE("a plan takes the cost of a loss from the simulator, or is told why it can't", "[forecast][command]") {
  const std::string moe = kConfigs + "moe_0b85.toml";
  const test::Arguments plan{"plan",
                             moe,
                             "--cluster",
                             "h100",
                             "--set",
                             "layout.slots=0",
                             "--set",
                             "layout.chunk_rows_max=4096",
                             "--set",
                             "limits.silence_ms=5000",
                             "--start-seconds",
                             "10"};
  test::Arguments here = plan, many = plan, both = plan;
  here.insert(here.end(), {"--gpus", "4", "--json"});
  const test::Ended ended = test::troupe(here);
  INFO(ended.err);
  REQUIRE(ended.code == 0);
  const double seconds = nlohmann::json::parse(ended.out).at(0).at("recovery_seconds");
  CHECK(seconds > 15);  // until it is noticed and replaced
  CHECK(seconds < 16);
  many.insert(many.end(), {"--gpus", "128", "--set", "train.gradient_lanes=128", "--set", "train.microbatches=128"});
  const test::Ended refused = test::troupe(many);
  CHECK(refused.code == 1);
  CHECK(refused.err.find("a loss is simulated of 2 to 64 devices, not of 128: give --recovery-seconds") !=
        std::string::npos);
  both.insert(both.end(), {"--recovery-seconds", "30"});
  CHECK(test::troupe(both).code == 2);
}

TEST_CASE("simulated layouts are ranked by their steps, which time and money then come from", "[forecast]") {
  const Config config = small({"train.steps=1000000"});
  const Cluster cluster{hardware("h100"), 8};
  const ClusterPlan estimated = plan_on(config, cluster, {}, {hardware("b200")});
  REQUIRE(estimated.fitting.size() >= 4);
  ClusterLimits limits;
  limits.simulated = 3;
  int asked = 0;  // the second is the quickest, the first can't be simulated
  limits.simulate = [&](const Config& laid) {
    const std::array<SimulatedStep, 3> told{
        {{.why = "it is too large"},
         {.seconds = 0.5, .bins = {{"useful", 0.4}, {"bubble", 0.1}}, .replicas = 2},
         {.seconds = 0.75}}};
    const LayoutConfig& expected = estimated.fitting.at(static_cast<std::size_t>(asked)).ranked.layout;
    CHECK(laid.layout.stages == expected.stages);
    CHECK(laid.layout.expert_shards == expected.expert_shards);
    return told.at(static_cast<std::size_t>(asked++));
  };
  const ClusterPlan plan = plan_on(config, cluster, limits, {hardware("b200")});
  CHECK(asked == 3);
  REQUIRE(plan.fitting.size() == estimated.fitting.size());
  const auto at = [](const ClusterPlan& p, std::size_t i) { return p.fitting[i].ranked.seconds; };
  CHECK(at(plan, 0) == at(estimated, 1));
  CHECK(at(plan, 1) == at(estimated, 2));
  CHECK(at(plan, 2) == at(estimated, 0));
  CHECK(at(plan, 3) == at(estimated, 3));
  CHECK(plan.best.laid.seconds == 0.5);
  CHECK(plan.best.hours(1000) == Approx(1000 * 0.5 / 3600));
  CHECK(plan.best.mfu == Approx(plan.estimated.mfu * plan.estimated.laid.seconds / 0.5));
  CHECK(plan.estimated.laid.seconds == at(estimated, 1));
  CHECK(plan.changes.back().forecast->laid.seconds == estimated.changes.back().forecast->laid.seconds);
  const std::string text = describe(plan, limits);
  CHECK(text.find("simulated step 0.5 s, by 2 of ") != std::string::npos);
  CHECK(text.find(" replicas, useful 80.0 %, bubble 20.0 %\n") != std::string::npos);
  CHECK(text.find("not simulated: it is too large\n") != std::string::npos);
  CHECK(describe(estimated, {}).find("simulated") == std::string::npos);
  const nlohmann::json told = to_json(plan);
  CHECK(told.at("layouts").at(0).at("simulated").at("device_seconds").at("bubble") == 0.1);
  CHECK(told.at("layouts").at(2).at("simulated").at("why") == "it is too large");
  CHECK(told.at("layouts").at(3).at("simulated").is_null());
}

TEST_CASE("a plan simulates a step of its first layouts", "[forecast][command]") {
  const test::Ended ended =
      test::troupe({"plan", kConfigs + "moe_0b85.toml", "--cluster", "h100", "--gpus", "4", "--set", "layout.slots=0",
                    "--set", "layout.chunk_rows_max=4096", "--simulate", "2", "--json"});
  INFO(ended.err);
  REQUIRE(ended.code == 0);
  CHECK(ended.err.find("simulating a step on 4 h100") != std::string::npos);
  const nlohmann::json told = nlohmann::json::parse(ended.out).at(0), &first = told.at("layouts").at(0);
  const double seconds = first.at("simulated").at("step_seconds");
  CHECK(told.at("best").at("step_seconds") == seconds);
  CHECK(seconds <= told.at("layouts").at(1).at("simulated").at("step_seconds").get<double>());
  CHECK(seconds == Approx(first.at("step_seconds").get<double>()).epsilon(0.5));
  double all = 0;
  for (const auto& [bin, spent] : first.at("simulated").at("device_seconds").items()) all += spent.get<double>();
  CHECK(all == Approx(seconds).epsilon(0.001));
}

TEST_CASE("every layout that is offered is one that a run would take", "[forecast]") {
  for (const int devices : {1, 2, 6, 8, 64}) {
    const std::vector<LayoutConfig> legal = legal_layouts(small(), devices);
    CHECK(!legal.empty());
    for (const LayoutConfig& layout : legal) {
      CHECK(layout.nodes == devices);
      CHECK_NOTHROW(check_config(with_layout(small(), layout)));
    }
  }
  CHECK(why_no_layout(small(), 8) == "");
  const std::string why = why_no_layout(small(), 4096);
  CHECK(why.find("raise train.gradient_lanes") != std::string::npos);
}

TEST_CASE("layouts are ranked by whoever times them, and the bins are the estimate", "[forecast]") {
  const Cluster cluster{hardware("h100"), 8};
  const std::vector<RankedLayout> ranked = rank_layouts(small(), cluster);
  for (std::size_t i = 1; i < ranked.size(); ++i) CHECK(ranked[i - 1].seconds <= ranked[i].seconds);
  CHECK(ranked[0].seconds == Approx(step_seconds(with_layout(small(), ranked[0].layout), cluster)));
  const auto by_stages = [](const Config& config, const Cluster&) { return 100.0 - config.layout.stages; };
  const std::vector<RankedLayout> other = rank_layouts(small(), cluster, by_stages);
  CHECK(other[0].layout.stages == 8);
  CHECK(other[0].seconds == 92);
  CHECK(other[0].bins.total() > 0);
}

TEST_CASE("quicker links and devices never lengthen a step; more devices shorten it", "[forecast]") {
  for (const LayoutConfig& layout : legal_layouts(small(), 16)) {
    const Config config = with_layout(small(), layout);
    HardwareConfig quick = hardware("h100");
    const double before = step_seconds(config, {quick, 16});
    quick.between_gbytes_per_second *= 2;
    CHECK(step_seconds(config, {quick, 16}) <= before);
    quick.bfloat16_gflops *= 2;
    CHECK(step_seconds(config, {quick, 16}) < before);
  }
  const HardwareConfig h = hardware("h100");
  CHECK(rank_layouts(small(), {h, 16})[0].seconds < rank_layouts(small(), {h, 4})[0].seconds);
}

TEST_CASE("what fits is said by the run's own sums, and what does not is told how to", "[forecast]") {
  Config config = small({"layout.replicas=2", "layout.stages=2", "layout.expert_shards=2", "layout.nodes=4"});
  const Fit fit = fit_of(memory_of(config, 4), hardware("h100"));
  const Plan plan = make_plan(config, 0);
  std::size_t largest = 0;
  for (const ActorPlan& actor : plan.actors)
    if (actor.address.role == Role::stage) largest = std::max(largest, actor.device());
  CHECK(fit.memory.stage.device() == largest);
  HardwareConfig tight = hardware("h100");
  tight.memory_gbytes = fit.memory.device_gbytes * 0.9;
  const Fit not_there = fit_of(memory_of(config, 4), tight);
  CHECK(!not_there.fits());
  CHECK(not_there.advice.find("layout.") != std::string::npos);
  CHECK(not_there.memory.parts[0].gbytes >= not_there.memory.parts[1].gbytes);
  tight.memory_gbytes = fit.memory.device_gbytes * 1.1;
  CHECK(fit_of(memory_of(config, 4), tight).fits());
}

TEST_CASE("a forecast's time is its money, and budgets and deadlines reach what they pay for", "[forecast]") {
  const Config config = small({"train.steps=1000000"});
  const Cluster cluster{hardware("h100"), 8};
  const ClusterPlan plan = plan_on(config, cluster, {.budget_dollars = 100, .deadline_days = 2}, {hardware("b200")});
  const Forecast& best = plan.best;
  REQUIRE(best.fit.fits());
  CHECK(best.dollars(best.steps) == Approx(best.hours(best.steps) * 8 * 3.0));
  REQUIRE(plan.reach.size() == 2);
  CHECK(plan.reach[0].dollars <= 100);
  CHECK(plan.reach[0].dollars > 99);
  CHECK(plan.reach[1].days <= 2);
  CHECK(plan.reach[1].tokens == Approx(plan.reach[1].steps * 262144));
  REQUIRE(plan.changes.size() == 3);
  CHECK(plan.changes[0].forecast->laid.seconds <= plan.changes[1].forecast->laid.seconds);
  CHECK(plan.changes[2].forecast->laid.seconds < best.laid.seconds);
  if (plan.in_time) CHECK(plan.in_time->hours(plan.in_time->steps) <= 48);
  CHECK(plan.spot.size() >= 5);
  const SpotRuns &best_interval = plan.spot.front().drawn, &copies = plan.spot.back().drawn;
  REQUIRE((best_interval.runs > 0 && copies.runs > 0));
  CHECK(copies.mean < best_interval.mean);
  CHECK(copies.mean >= best.hours(best.steps) * 3600);
  CHECK(best_interval.mean == Approx(plan.spot.front().days * 86400).epsilon(0.02));
  const std::string text = describe(plan, {});
  CHECK(text.find("on demand, where none are taken away:\n  the best interval (Daly): ") != std::string::npos);
}

TEST_CASE("every figure of a shipped hardware file says whose it is", "[forecast]") {
  std::set<std::string> figures;
  for (const Key& key : config_keys()) {
    const bool text = key.name == "hardware.name" || key.name == "hardware.source" || key.name == "hardware.date" ||
                      key.name == "hardware.vendor" || key.name == "hardware.measured" ||
                      key.name == "hardware.assumed";
    if (key.name.starts_with("hardware.") && !text) figures.insert(key.name.substr(9));
  }
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kConfigs + "hardware")) {
    INFO(entry.path().string());
    const HardwareConfig h = load_hardware(entry.path().string()).hardware;
    std::multiset<std::string> told;
    for (const auto* list : {&h.vendor, &h.measured, &h.assumed}) told.insert(list->begin(), list->end());
    for (const std::string& figure : told) CHECK((figures.contains(figure) && told.count(figure) == 1));
    for (const std::string& figure : figures)
      CHECK((told.contains(figure) || (figure == "compute_threads" && h.compute_threads == 1)));
    CHECK(!h.source.empty());
    CHECK(!h.date.empty());
    ++files;
  }
  CHECK(files >= 7);
}

TEST_CASE("bad hardware is refused in one sentence that says what, where and what to do", "[forecast]") {
  CHECK_THROWS_WITH(load_hardware("no/such.toml"), Catch::Contains("--cluster no/such.toml: no such file") &&
                                                       Catch::Contains("copy configs/hardware/h100.toml"));
  HardwareConfig untold;
  CHECK(why_untold({untold, 1}).find("memory_gbytes is not told") == 0);
  untold.memory_gbytes = 8;
  CHECK(why_untold({untold, 1}).empty());
  CHECK(why_untold({untold, 2}).find("between_gbytes_per_second is not told") == 0);
}

TEST_CASE("plan --cluster answers as JSON, and refuses what it can't answer", "[forecast]") {
  const std::string config = kConfigs + "moe_0b85.toml";
  const test::Ended told =
      test::troupe({"plan", config, "--cluster", "h100", "--cluster", kConfigs + "hardware/a100.toml", "--gpus", "8",
                    "--budget-dollars", "10", "--json"});
  REQUIRE(told.code == 0);
  const auto plans = nlohmann::json::parse(told.out);
  REQUIRE(plans.size() == 2);
  CHECK(plans[0]["hardware"] == "h100");
  CHECK(plans[1]["hardware"] == "a100");
  CHECK(plans[0]["best"]["devices"] == 8);
  CHECK(plans[0]["reach"][0]["dollars"] <= 10);

  const auto refused = [&](const test::Arguments& more, const std::string& says) {
    test::Arguments arguments = {"plan", config};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const test::Ended ended = test::troupe(arguments);
    CHECK(ended.code != 0);
    CHECK(ended.out.empty());
    CHECK(ended.err.find(says) != std::string::npos);
  };
  refused({"--cluster", "abacus"}, "--cluster abacus: no such file");
  refused({"--cluster", "h100", "--gpus", "0"}, "--gpus");
  refused({"--cluster", "h100", "--gpus", "4096"}, "raise train.gradient_lanes");
  refused({"--cluster", "h100", "--budget-dollars", "-5"}, "--budget-dollars");
  refused({"--gpus", "8"}, "--cluster");
  refused({"--cluster", "h800", "--published"}, "name configs/deepseek_v3.toml");
  const test::Folder folder;
  const auto refused_file = [&](const std::string& text, const std::string& says) {
    test::write_file(folder / "own.toml", text);
    refused({"--cluster", folder / "own.toml", "--gpus", "16"}, says);
  };
  refused_file("memory_gbyte = 80\n", "own.toml:1: hardware.memory_gbyte is not a key, did you mean");
  refused_file("memory_gbytes = 80\nproduct_share = 1.5\n",
               "own.toml:2: hardware.product_share is 1.5, must be 0.01..1");
  refused_file("memory_gbytes = 80\n", "own.toml: between_gbytes_per_second is not told");
}
