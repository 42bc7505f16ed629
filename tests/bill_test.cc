// The bill: every moment of every compute thread in one bin, by cause.
#include "actors/bill.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "actors/metrics.h"
#include "launcher/bill.h"
#include "launcher/simulation/laws.h"
#include "launcher/simulation/sim_corpus.h"
#include "launcher/simulation/sim_world.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

constexpr Address kStage{Role::stage, 0}, kNext{Role::stage, 1}, kShard{Role::expert_shard, 2},
    kConductor{Role::conductor, 0}, kCheckpointer{Role::checkpointer, 0};

Wait wait_for(Awaited what, const Address& holder) { return {what, holder, {}, 0}; }

Usage usage_of(std::int64_t learn_us, std::int64_t evaluate_us, std::int64_t snapshot_us, std::int64_t idle_us) {
  return {{learn_us, evaluate_us, snapshot_us, idle_us}, 1, 1, 0};
}

Meter::Ask told(Awaited what, const Address& holder) {
  return [waits = NodeWaits{{kStage, {wait_for(what, holder)}}}]() -> const NodeWaits& { return waits; };
}

const Meter::Ask kBubble = told(Awaited::activations, kNext), kRecovery = told(Awaited::restored, kNext);

std::int64_t of(const Meter& meter, Bin bin, const Usage& usage) {
  return total_us(Meter(meter).bill(usage, kBubble, 0, 0).account, bin);
}

Decision decision(std::int64_t step, std::uint32_t attempt, bool checkpoint = false) {
  Decision made;
  made.step = step;
  made.attempt = attempt;
  made.checkpoint = checkpoint;
  return made;
}

Restore restore(std::int64_t version, std::uint32_t attempt) {
  Restore made;
  made.version = version;
  made.attempt = attempt;
  return made;
}

}  // namespace

TEST_CASE("an idle thread is charged to what its node waits for elsewhere", "[bill]") {
  const auto cause = [](Awaited what, const Address& holder) {
    return cause_of({{kStage, {wait_for(what, holder)}}}, false);
  };
  CHECK(cause(Awaited::activations, kNext) == Cause{Bin::bubble, kNext});
  CHECK(cause(Awaited::activation_gradients, kNext) == Cause{Bin::bubble, kNext});
  CHECK(cause(Awaited::credit, kNext) == Cause{Bin::bubble, kNext});
  CHECK(cause(Awaited::expert_result, kShard) == Cause{Bin::imbalance, kShard});
  CHECK(cause(Awaited::credit, kShard) == Cause{Bin::imbalance, kShard});
  CHECK(cause(Awaited::partial_sums, kNext) == Cause{Bin::waiting, kNext});
  CHECK(cause(Awaited::decision, kConductor) == Cause{Bin::waiting, kConductor});
  CHECK(cause(Awaited::credit, kCheckpointer) == Cause{Bin::checkpoint, kCheckpointer});
  CHECK(cause(Awaited::segment, kStage) == Cause{Bin::narrow, kNoHolder});
  CHECK(cause_of({{kStage, {}}}, false) == Cause{Bin::waiting, kConductor});
}

TEST_CASE("coming to one state is start-up the first time, and redo after a loss", "[bill]") {
  const NodeWaits waits{{kStage, {wait_for(Awaited::expert_result, kShard)}},
                        {kConductor, {wait_for(Awaited::restored, kNext)}}};
  CHECK(cause_of(waits, false) == Cause{Bin::start_up, kNoHolder});
  CHECK(cause_of(waits, true) == Cause{Bin::redo, kNoHolder});
}

TEST_CASE("what the work needs comes before what would follow it, and before what goes on beside it", "[bill]") {
  Waits waits{wait_for(Awaited::segment, kStage), wait_for(Awaited::credit, kCheckpointer)};
  CHECK(cause_of({{kStage, waits}}, false).bin == Bin::checkpoint);
  waits.push_back(wait_for(Awaited::decision, kConductor));
  CHECK(cause_of({{kStage, waits}}, false).bin == Bin::waiting);
  waits.push_back(wait_for(Awaited::activations, kNext));
  CHECK(cause_of({{kStage, waits}}, false).bin == Bin::bubble);
  waits.push_back(wait_for(Awaited::expert_result, kShard));
  CHECK(cause_of({{kStage, waits}}, false).bin == Bin::imbalance);
}

TEST_CASE("a wait for a neighbour on the same node is charged to what the neighbour waits for", "[bill]") {
  NodeWaits waits{{kStage, {wait_for(Awaited::decision, kConductor)}}, {kConductor, {wait_for(Awaited::vote, kShard)}}};
  CHECK(cause_of(waits, false) == Cause{Bin::waiting, kShard});
  waits[kConductor] = {wait_for(Awaited::checkpoint, kCheckpointer)};
  waits[kCheckpointer] = {wait_for(Awaited::disk, kCheckpointer)};
  CHECK(cause_of(waits, false).bin == Bin::checkpoint);
  waits[kConductor] = {wait_for(Awaited::vote, kShard)};
  waits[kStage] = {wait_for(Awaited::segment, kStage)};  // the votes will come when the work here is done
  CHECK(cause_of(waits, false).bin == Bin::narrow);
}

TEST_CASE("a meter's bins sum to the device's time, whenever it is asked", "[bill]") {
  Meter meter(1);
  meter.turn(usage_of(0, 0, 0, 500), kRecovery);
  CHECK(of(meter, Bin::start_up, usage_of(0, 0, 0, 500)) == 500);
  meter.see(restore(0, 0));
  meter.turn(usage_of(1000, 0, 0, 700), kBubble);
  meter.rest(usage_of(1000, 300, 0, 730));
  meter.turn(usage_of(1000, 300, 20, 760), kBubble);  // too little to ask about: yet it is not forgotten
  const Usage end = usage_of(1000, 300, 20, 770);
  CHECK(of(meter, Bin::useful, end) == 1000);
  CHECK(of(meter, Bin::evaluation, end) == 300);
  CHECK(of(meter, Bin::checkpoint, end) == 20);
  CHECK(of(meter, Bin::messages, end) == 30);
  CHECK(of(meter, Bin::bubble, end) == 240);
  CHECK(total_us(meter.bill(end, kBubble, 0, 0).account) == end.total_us());
}

TEST_CASE("a thread that has yet to wake for a segment waits for nobody", "[bill]") {
  Meter meter(1);
  Usage usage = usage_of(0, 0, 0, 500);
  usage.ready = 1;
  meter.turn(usage, kBubble);
  CHECK(of(meter, Bin::messages, usage) == 500);
  CHECK(of(meter, Bin::bubble, usage) == 0);
}

TEST_CASE("what was spent since the version to which the run goes back is redo", "[bill]") {
  Meter meter(1);
  meter.turn(usage_of(0, 0, 0, 1000), kRecovery);
  meter.see(restore(0, 0));
  meter.turn(usage_of(10'000, 0, 0, 1500), kBubble);
  meter.see(decision(0, 0));
  meter.turn(usage_of(17'000, 0, 0, 2500), kBubble);
  meter.see(restore(1, 1));
  meter.see(restore(1, 1));  // every actor of the node gets it
  const Usage end = usage_of(18'000, 0, 0, 2500);
  CHECK(of(meter, Bin::redo, end) == 7000 + 1000);
  CHECK(of(meter, Bin::useful, end) == 10'000 + 1000);
  CHECK(of(meter, Bin::bubble, end) == 500);
  CHECK(of(meter, Bin::start_up, end) == 1000);
  meter.turn(usage_of(18'000, 0, 0, 4000), kRecovery);
  CHECK(of(meter, Bin::redo, usage_of(18'000, 0, 0, 4000)) == 9500);
}

TEST_CASE("a step whose decision was seen elsewhere is not lost, but what was waited for who is lost", "[bill]") {
  Meter meter(1);
  meter.see(restore(0, 0));
  meter.turn(usage_of(5000, 0, 0, 1500), kBubble);
  meter.see(restore(1, 1));
  const Usage end = usage_of(5000, 0, 0, 1500);
  CHECK(of(meter, Bin::useful, end) == 5000);
  CHECK(of(meter, Bin::redo, end) == 1500);
  CHECK(of(meter, Bin::bubble, end) == 0);
}

TEST_CASE("the bill remembers as far back as a run may go, and no more versions than that", "[bill]") {
  Meter meter(1);
  meter.see(restore(0, 0));
  for (std::int64_t step = 0; step < 100; ++step) {
    meter.turn(usage_of(1000 * (step + 1), 0, 0, 0), kBubble);
    meter.see(decision(step, 0, step == 49));
  }
  const Usage end = usage_of(100'000, 0, 0, 0);
  CHECK(meter.bill(end, kBubble, 0, 0).versions.size() == 9);
  meter.see(restore(50, 1));
  CHECK(of(meter, Bin::redo, end) == 50'000);
  CHECK(of(meter, Bin::useful, end) == 50'000);
}

TEST_CASE("the start of a node that replaces a lost one is redo", "[bill]") {
  Meter meter(2);
  meter.turn(usage_of(0, 0, 0, 50), kBubble);
  meter.rest(usage_of(0, 0, 0, 90));
  CHECK(of(meter, Bin::redo, usage_of(0, 0, 0, 90)) == 40);
}

// ---- The run --------------------------------------------------------------------------------------------------------

namespace {

Config two_nodes() {
  Config config;
  config.model.model_type = "deepseek_v3";
  config.model.vocab_size = 16;
  config.model.hidden_size = 8;
  config.model.intermediate_size = 8;
  config.model.moe_intermediate_size = 8;
  config.model.num_hidden_layers = 2;
  config.model.first_k_dense_replace = 0;
  config.model.num_attention_heads = config.model.num_key_value_heads = 2;
  config.model.max_position_embeddings = 64;
  config.model.kv_lora_rank = 8;
  config.model.qk_nope_head_dim = config.model.v_head_dim = config.model.qk_rope_head_dim = 4;
  config.model.n_routed_experts = 4;
  config.model.num_experts_per_tok = 2;
  config.train.steps = 6;
  config.train.batch_sequences = config.train.microbatches = 4;
  config.train.gradient_lanes = 1;
  config.train.sequence_length = 8;
  config.train.warmup_steps = 1;
  config.data.kind = "none";
  config.evaluate.every_steps = 0;
  config.evaluate.exact_match_problems = 0;
  config.checkpoint.every_steps = 0;
  config.layout.nodes = 2;
  config.device.threads = 2;
  config.hardware.dollars_per_hour = 3.6;
  return config;
}

NodeBill told(std::int64_t since_us, std::int64_t until_us, Account account) {
  return {since_us, until_us, std::move(account), {}};
}

double spent(const nlohmann::json& line, Bin bin) { return line.at("thread_seconds").at(to_string(bin)); }

constexpr std::int64_t kSecond = 1'000'000;

}  // namespace

TEST_CASE("what nobody told is start-up, or redo once a node was lost", "[bill]") {
  const Config config = two_nodes();
  RunBill bill(config, 100 * kSecond);
  bill.tell(0, told(101 * kSecond, 110 * kSecond, {{{Bin::useful, kNoHolder}, 18 * kSecond}}));
  NodeBill begun = told(102 * kSecond, 105 * kSecond, {{{Bin::useful, kNoHolder}, 6 * kSecond}});
  begun.versions[0] = {};
  bill.tell(1, begun);
  bill.lost(1);
  bill.ready(0);
  bill.tell(1, told(108 * kSecond, 110 * kSecond, {{{Bin::useful, kNoHolder}, 4 * kSecond}}));
  const auto line = bill.line(true, 111 * kSecond);
  CHECK(spent(line, Bin::start_up) == Approx(2 + 4 + 2 + 2));
  CHECK(spent(line, Bin::redo) == Approx(6 + 6));
  CHECK(spent(line, Bin::useful) == Approx(18 + 4));
  CHECK(line.at("wall_thread_seconds") == Approx(44));
  CHECK(broken_by(line).empty());
  CHECK(line.at("cost_dollars").get<double>() == Approx(2 * 11 * 3.6 / 3600));
  CHECK_THAT(bill_table(line), Catch::Contains("1 lost"));
  CHECK_THAT(bill_table(line), Catch::Contains("$0.0220"));
}

TEST_CASE("a bill that does not add up breaks the law", "[bill]") {
  const Config config = two_nodes();
  RunBill bill(config, 0);
  bill.tell(0, told(0, 10 * kSecond, {{{Bin::useful, kNoHolder}, 19 * kSecond}}));
  CHECK_THAT(broken_by(bill.line(true, 10 * kSecond)), Catch::Contains("39"));
}

TEST_CASE("who waits for the conductor waits for what the conductor's node waits for", "[bill]") {
  const Config config = two_nodes();
  RunBill bill(config, 0);
  const Cause led{Bin::waiting, kConductor}, slow{Bin::waiting, kShard};
  bill.tell(1, told(0, 10 * kSecond, {{led, 20 * kSecond}}));
  bill.tell(0, told(0, 10 * kSecond, {{slow, 15 * kSecond}, {{Bin::useful, kNoHolder}, 5 * kSecond}}));
  bill.tell(1, told(0, 20 * kSecond, {{led, 40 * kSecond}}));
  bill.tell(0, told(0, 20 * kSecond,
                    {{slow, 15 * kSecond},
                     {{Bin::useful, kNoHolder}, 5 * kSecond},
                     {{Bin::checkpoint, kNoHolder}, 20 * kSecond}}));
  const auto line = bill.line(true, 20 * kSecond);
  CHECK(broken_by(line).empty());
  CHECK(spent(line, Bin::checkpoint) == Approx(20 + 20));
  CHECK(spent(line, Bin::waiting) == Approx(15 + 20));
  CHECK(line.at("worst").at("waiting").at("holder") == "expert_shard 2");
  CHECK(line.at("worst").at("waiting").at("thread_seconds") == Approx(30));
}

TEST_CASE("no wait for the conductor is looked behind for longer than it was, to the microsecond", "[bill]") {
  const Config config = two_nodes();
  RunBill bill(config, 0);
  const Cause led{Bin::waiting, kConductor};
  bill.tell(1, told(0, kSecond, {{led, 3}}));
  bill.tell(0, told(0, kSecond,
                    {{{Bin::bubble, kNext}, 7}, {{Bin::imbalance, kShard}, 7}, {{Bin::checkpoint, kNoHolder}, 7}}));
  bill.tell(1, told(0, kSecond, {{led, 2}}));  // a lost attempt took one back
  const auto line = bill.line(false, kSecond);
  for (std::size_t i = 0; i < kBins; ++i) CHECK(spent(line, static_cast<Bin>(i)) >= 0);
}

TEST_CASE("a run that goes on pays for what its lost tail had cost", "[bill]") {
  const Config config = two_nodes();
  const std::string path = fmt::format("/dev/shm/troupe-bill-test-{}.jsonl", ::getpid());
  std::ofstream file(path);
  for (const std::int64_t version : {2, 4, 6}) {
    RunBill before(config, 0);
    before.ready(version);
    for (const std::uint32_t node : {0U, 1U})
      before.tell(node, told(0, version * kSecond, {{{Bin::useful, kNoHolder}, 2 * version * kSecond}}));
    file << before.line(true, version * kSecond).dump() << "\n";
  }
  file << "{\"kind\": \"bi" << std::flush;
  RunBill bill(config, 50 * kSecond);
  bill.go_on(path, 5);
  std::filesystem::remove(path);
  const auto line = bill.line(true, 51 * kSecond);
  CHECK(spent(line, Bin::useful) == Approx(16));
  CHECK(spent(line, Bin::redo) == Approx(8));
  CHECK(spent(line, Bin::start_up) == Approx(4));
  CHECK(line.at("wall_thread_seconds") == Approx(28));
  CHECK(broken_by(line).empty());
}

TEST_CASE("time before a run's first step is on its bill, and the run goes on from it", "[bill]") {
  const Config config = two_nodes();
  const std::string path = fmt::format("/dev/shm/troupe-bill-time-test-{}.jsonl", ::getpid());
  const auto asked = [&](std::int64_t seconds) {
    return bill_of_time(config, Bin::evaluation, 7 * kSecond, (7 + seconds) * kSecond, path);
  };
  const auto first = asked(3);
  CHECK(spent(first, Bin::evaluation) == Approx(12));
  CHECK(first.at("cost_dollars") == Approx(6e-3));  // 3 s of two nodes at 3.6 dollars an hour
  std::ofstream(path) << first.dump() << "\n{\"kind\": \"bi";
  const auto both = asked(2);  // it was interrupted, and is asked again
  std::ofstream(path) << first.dump() << "\n" << both.dump() << "\n";
  RunBill run(config, 50 * kSecond);
  run.go_on(path, 0);
  std::filesystem::remove(path);
  const auto line = run.line(true, 51 * kSecond);
  CHECK(spent(line, Bin::evaluation) == Approx(20));
  CHECK(spent(line, Bin::start_up) == Approx(4));
  CHECK(spent(line, Bin::redo) == 0);
  CHECK(line.at("wall_thread_seconds") == Approx(24));
  for (const auto& each : {first, both, line}) CHECK(broken_by(each).empty());
}

TEST_CASE("the memory on a bill is the program's own largest, as the kernel tells it", "[bill]") {
  CHECK(peak_kib_in("Name:\ttroupe\nVmPeak:\t  900 kB\nVmHWM:\t   38912 kB\nVmRSS:\t 5 kB\n") == 38912);
  for (const std::string none : {"", "Name:\tVmHWM:\n", "Name:\tx\nVmHWM:", "Name:\tx\nVmHWM:\t kB\n"})
    CHECK(!peak_kib_in(none));
  const std::vector<char> touched(std::size_t{64} << 20, 'x');
  CHECK(touched.back() == 'x');
  CHECK(peak_memory_mib() > 64);
}

TEST_CASE("a node's bill survives the way to the launcher", "[bill]") {
  NodeBill bill{3, 14, {{{Bin::bubble, kNext}, 15}, {{Bin::useful, kNoHolder}, 9}}, {}};
  bill.versions[7] = {{{Bin::useful, kNoHolder}, 2}};
  const NodeBill again = node_bill_from(nlohmann::json::parse(to_json(bill).dump()));
  CHECK(again.since_us == 3);
  CHECK(again.until_us == 14);
  CHECK(again.account == bill.account);
  CHECK(again.versions == bill.versions);
}

// ---- Stalls in simulated worlds -------------------------------------------------------------------------------------

namespace {

constexpr std::int64_t kStallUs = 10 * kSecond;

struct Stalled {
  SimWorldOptions options;
  std::int64_t kill_at_us = 0;  // node 1, which is back when the stall is over
};

SimWorldOptions world_options(const Config& config, const std::string& folder) {
  SimWorldOptions options;
  options.run_folder = folder;
  options.corpus = make_sim_corpus(config);
  SimDeviceOptions device;
  device.servers = config.device.threads;
  device.flops_per_us = device.bytes_per_us = 50;
  device.numbers = false;
  options.devices.assign(static_cast<std::size_t>(config.layout.nodes), device);
  options.network.latency_us = 200;
  options.link.reliable_transport = false;
  return options;
}

nlohmann::json bill_of(const Config& config, const std::function<void(Stalled&)>& stall) {
  const std::string folder = fmt::format("/dev/shm/troupe-bill-test-{}", ::getpid());
  std::filesystem::create_directories(folder + "/checkpoints");
  Stalled stalled{world_options(config, folder)};
  stall(stalled);
  SimWorld world(config, stalled.options);
  world.start({});
  if (stalled.kill_at_us > 0) {
    world.events().at(stalled.kill_at_us, [&] { world.kill(1); });
    world.events().at(stalled.kill_at_us + kStallUs, [&] {
      world.restart(1);
      Recover again;
      again.attempt = 1;
      world.start(again);
    });
  }
  CHECK(world.run_until([&] { return world.finished(); }, 100 * kStallUs));
  const auto line = world.bill();
  std::filesystem::remove_all(folder);
  INFO(bill_table(line));
  CHECK(broken_by(line).empty());
  return line;
}

// Ten seconds of all threads, and little else: a lost frame's resend takes its time too.
void expect_only(const Config& config, Bin own, const std::function<void(Stalled&)>& stall) {
  const auto calm = bill_of(config, [](Stalled&) {}), stalled = bill_of(config, stall);
  const double threads = config.device.threads * config.layout.nodes, seconds = kStallUs * 1e-6 * threads;
  INFO("calm\n" << bill_table(calm) << "stalled\n" << bill_table(stalled));
  for (std::size_t i = 0; i < kBins; ++i) {
    const auto bin = static_cast<Bin>(i);
    INFO(to_string(bin));
    CHECK(spent(stalled, bin) - spent(calm, bin) == Approx(bin == own ? seconds : 0).margin(0.02 * seconds));
  }
}

std::int64_t middle_us(const Config& config) {
  const auto calm = bill_of(config, [](Stalled&) {});
  const double wall = calm.at("wall_thread_seconds").get<double>() / (config.device.threads * config.layout.nodes);
  return static_cast<std::int64_t>(wall * 1e6 / 2);
}

std::function<void(Stalled&)> cut_from(std::int64_t begin_us) {
  return [=](Stalled& stalled) {
    stalled.options.network.cuts = {{0, 1, begin_us, begin_us + kStallUs}, {1, 0, begin_us, begin_us + kStallUs}};
  };
}

}  // namespace

TEST_CASE("ten seconds without a link between two stages are bubble and nothing else", "[bill][sim]") {
  Config config = two_nodes();
  config.model.first_k_dense_replace = 2;
  config.layout.stages = 2;
  config.recovery.copies = 0;
  expect_only(config, Bin::bubble, cut_from(middle_us(config)));
}

TEST_CASE("ten seconds without a link to an expert shard are imbalance and nothing else", "[bill][sim]") {
  Config config = two_nodes();
  config.layout.expert_shards = 2;
  config.recovery.copies = 0;
  expect_only(config, Bin::imbalance, cut_from(middle_us(config)));
}

TEST_CASE("ten seconds of a slow disk are checkpoint and nothing else", "[bill][sim]") {
  for (const int nodes : {1, 2}) {
    Config config = two_nodes();
    config.layout.nodes = nodes;
    config.layout.expert_shards = nodes;
    std::int64_t jobs = 0;
    const auto disk_of = [&](std::int64_t job_us) {
      return [job_us](Stalled& stalled) { stalled.options.disk.job_us = job_us; };
    };
    const double a = bill_of(config, disk_of(10'000)).at("wall_thread_seconds"),
                 b = bill_of(config, disk_of(20'000)).at("wall_thread_seconds");
    jobs = std::llround((b - a) / (0.01 * nodes * config.device.threads));
    expect_only(config, Bin::checkpoint, disk_of(kStallUs / jobs));
  }
}

TEST_CASE("ten seconds until a killed node is back are redo and nothing else", "[bill][sim]") {
  Config config = two_nodes();
  config.layout.expert_shards = 2;
  const std::int64_t kill_at_us = middle_us(config);
  expect_only(config, Bin::redo, [=](Stalled& stalled) { stalled.kill_at_us = kill_at_us; });
}
