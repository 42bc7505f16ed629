// Losses that a run survives: real processes are killed, stopped or cut off at random moments, and the rule by which
// everybody comes to one state. The promise: the undisturbed bits, and nobody but the lost process is started again.
#include <linux/filter.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <thread>

#include "actors/rules/placement.h"
#include "actors/rules/recovery.h"
#include "tests/support/run.h"

#include "tests/support/catch.h"

using namespace troupe::test;
using troupe::Address;
using troupe::Config;
using troupe::Role;

namespace {

const Arguments kLong{"train.steps=300", "checkpoint.every_steps=40", "limits.heartbeat_ms=100",
                      "limits.silence_ms=1500"};
const Arguments kShards{"layout.nodes=4", "layout.expert_shards=4"};
const Arguments kTwins{"layout.nodes=4", "layout.replicas=2", "layout.stages=2", "layout.transport=tcp"};

Arguments operator+(Arguments a, const Arguments& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::vector<pid_t> nodes_of(const Process& process) {
  std::vector<pid_t> nodes = process.members();
  std::erase(nodes, process.pid());
  return nodes;
}

Ended expect_success(const Arguments& arguments) {
  Ended ended = troupe::test::troupe(arguments);
  INFO(nlohmann::json(arguments).dump() << "\n" << ended.out << ended.err);
  REQUIRE(ended.code == 0);
  return ended;
}

std::string digest_after(const std::string& run) { return expect_success({"digest", run}).out.substr(0, 64); }

// What befalls a node: a signal, or its network.
constexpr int kCut = 0;

// Drops whatever reaches the process through TCP from here on: its peers see neither an end nor an answer.
void cut_off(pid_t pid) {
  const int process = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  REQUIRE(process >= 0);
  int cut = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd")) {
    const int fd = static_cast<int>(::syscall(SYS_pidfd_getfd, process, std::stoi(entry.path().filename()), 0));
    if (fd < 0) continue;
    int domain = 0;
    socklen_t size = sizeof domain;
    sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
    const sock_fprog program{1, &nothing};
    if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain != AF_UNIX)
      cut += ::setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0 ? 1 : 0;
    ::close(fd);
  }
  ::close(process);
  REQUIRE(cut > 0);
}

void strike(pid_t pid, int blow) {
  if (blow == kCut)
    cut_off(pid);
  else
    ::kill(pid, blow);
}

using Latencies = std::vector<std::int64_t>;  // milliseconds from a blow to the next committed step

// Strikes one node at a time, each after some more steps; the others must be the same processes afterwards.
Latencies disturb(Process& process, const std::string& run, const std::vector<int>& blows, std::uint32_t seed) {
  std::mt19937 draw(seed);
  std::size_t steps = 1;
  Latencies latencies;
  for (const int blow : blows) {
    steps += 1 + draw() % 30;
    REQUIRE(process.follow([&] { return metrics_of(run, "step").size() >= steps; }));
    std::this_thread::sleep_for(std::chrono::microseconds(draw() % 20000));
    const std::vector<pid_t> before = nodes_of(process);
    REQUIRE(before.size() == 4);
    const pid_t victim = before[draw() % before.size()];
    strike(victim, blow);
    const auto struck = std::chrono::steady_clock::now();
    const std::size_t done = metrics_of(run, "step").size();  // what was committed before may still be told
    const auto is_there = [&] {
      const std::vector<pid_t> now = nodes_of(process);
      return std::find(now.begin(), now.end(), victim) != now.end();
    };
    const bool went_on = process.follow([&] { return !is_there() && metrics_of(run, "step").size() > done + 1; });
    INFO("process " << victim << " was struck by " << blow << " after " << done << " steps; the launcher says:\n"
                    << process.err());
    REQUIRE(went_on);
    latencies.push_back(
        std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - struck).count());
    const std::vector<pid_t> after = nodes_of(process);
    for (const pid_t pid : before) {
      const bool there = std::find(after.begin(), after.end(), pid) != after.end();
      CHECK(there == (pid != victim));
    }
    steps = std::max(steps, metrics_of(run, "step").size());
  }
  return latencies;
}

Latencies expect_undisturbed(const Arguments& layout, const std::vector<int>& blows, std::uint32_t seed,
                             std::size_t total = 300) {
  const Folder folder;
  const Arguments length = kLong + Arguments{"train.steps=" + std::to_string(total)};
  const Ended calm = run(troupe_command(tiny_run(folder / "calm", length)), 0, 240'000);
  INFO(calm.err);
  REQUIRE(calm.code == 0);
  const std::string disturbed = folder / "run";
  Process process(troupe_command(tiny_run(disturbed, length + layout)), 240'000);
  Latencies latencies = disturb(process, disturbed, blows, seed);
  const Ended ended = process.wait();
  INFO(ended.out << ended.err);
  CHECK(ended.code == 0);
  CHECK(digest_after(disturbed) == digest_after(folder / "calm"));
  std::set<std::int64_t> steps;
  for (const auto& step : metrics_of(disturbed, "step"))
    CHECK(steps.insert(step.at("step").get<std::int64_t>()).second);  // each told once
  CHECK(steps.size() == total);
  return latencies;
}

Config laid_out(int nodes, int replicas, int stages, int shards) {
  Config config;
  config.model.model_type = "deepseek_v3";
  config.model.num_hidden_layers = 4;
  config.model.first_k_dense_replace = 0;
  config.model.n_routed_experts = 4;
  config.model.num_experts_per_tok = 2;
  config.layout.nodes = nodes;
  config.layout.replicas = replicas;
  config.layout.stages = stages;
  config.layout.expert_shards = shards;
  return config;
}

std::map<Address, troupe::Standing> all_at(const Config& config, std::int64_t version) {
  std::map<Address, troupe::Standing> standings;
  for (const Address& holder : troupe::holders(config)) {
    troupe::Standing s{1, version, false, true, {}};
    s.decision.step = version - 1;
    standings[holder] = s;
  }
  return standings;
}

// The node and all it held are new.
void lose(std::map<Address, troupe::Standing>& standings, const Config& config, std::uint32_t node) {
  const auto places = troupe::place_actors(config);
  for (auto& [holder, standing] : standings)
    if (places.at(holder) == node) standing = {1, -1, false, false, {}};
}

}  // namespace

TEST_CASE("a run rides through kill -9 of any process, and nobody else is started again", "[recovery]") {
  expect_undisturbed(kShards, {SIGKILL, SIGKILL, SIGKILL, SIGKILL}, 1);
  expect_undisturbed(kTwins, {SIGKILL, SIGKILL, SIGKILL, SIGKILL}, 2);
}

TEST_CASE("a process that stops is missed, killed and replaced", "[recovery]") {
  expect_undisturbed(kShards, {SIGSTOP, SIGKILL}, 3);
}

TEST_CASE("a process that is cut off from the others is missed, killed and replaced", "[recovery]") {
  expect_undisturbed(kTwins, {kCut}, 5);
}

TEST_CASE("a run rides through many losses", "[recovery][.large]") {
  std::map<int, Latencies> by_blow;
  for (std::uint32_t seed = 10; seed < 35; ++seed) {
    INFO("seed " << seed);
    const bool tcp = seed % 2 != 0;
    const std::vector<int> blows{SIGKILL, SIGKILL, SIGSTOP, SIGKILL, tcp ? kCut : SIGKILL, SIGKILL, SIGKILL, SIGKILL};
    const Latencies seen = expect_undisturbed(tcp ? kTwins : kShards, blows, seed, 1200);
    for (std::size_t i = 0; i < seen.size(); ++i) by_blow[blows[i]].push_back(seen[i]);
  }
  for (auto& [blow, seen] : by_blow) {
    std::sort(seen.begin(), seen.end());
    WARN((blow == kCut ? "cut off" : strsignal(blow))
         << ": " << seen.size() << " times, from there to the next committed step in the middle "
         << seen[seen.size() / 2] << " ms, 99th percentile " << seen[seen.size() * 99 / 100] << " ms");
  }
}

TEST_CASE("on busy cores nobody is taken for lost at the limits that are shipped", "[recovery][.large]") {
  const Folder folder;
  std::vector<std::unique_ptr<Process>> hogs;
  for (unsigned i = 0; i < 2 * std::thread::hardware_concurrency(); ++i)
    hogs.push_back(std::make_unique<Process>(Arguments{"/bin/sh", "-c", "while kill -0 $PPID; do :; done"}, 600'000));
  Process process(troupe_command(tiny_run(folder / "run", kShards + Arguments{"train.steps=1000"})), 600'000);
  const Ended ended = process.wait();
  INFO(ended.err);
  CHECK(ended.code == 0);
  CHECK(ended.err.find("is lost") == std::string::npos);
}

TEST_CASE("without copies a loss goes back to the last checkpoint, and the bits are the same", "[recovery]") {
  expect_undisturbed(kShards + Arguments{"recovery.copies=0"}, {SIGKILL, SIGKILL}, 4);
}

TEST_CASE("a process lost while the model answers at the end is replaced, and the answers come", "[recovery]") {
  const Folder folder;
  const std::string run = folder / "run";
  Process process(troupe_command(tiny_run(run, kLong + kShards +
                                                   Arguments{"train.steps=3", "checkpoint.every_steps=0",
                                                             "evaluate.exact_match_problems=1000"})),
                  60'000);
  REQUIRE(process.follow(
      [&] { return metrics_of(run, "checkpoint").size() == 1 && metrics_of(run, "evaluation").size() == 1; }));
  REQUIRE(metrics_of(run, "exact_match").empty());
  ::kill(nodes_of(process).back(), SIGKILL);
  const Ended ended = process.wait();
  INFO(ended.out << ended.err);
  CHECK(ended.code == 0);
  CHECK(ended.err.find("starting it again") != std::string::npos);
  CHECK(metrics_of(run, "exact_match").size() == 1);
}

TEST_CASE("who is cut off is lost, whoever complains first", "[recovery]") {
  CHECK(!troupe::cut_off({}, 4, true));
  CHECK(!troupe::cut_off({{1, 2}}, 4, false));  // of 1 or of 2: others may be about to say
  CHECK(!troupe::cut_off({{1, 2}, {2, 1}, {1, 3}}, 4, false));
  CHECK(troupe::cut_off({{1, 2}, {3, 1}, {0, 1}}, 4, false) == 1U);
  CHECK(troupe::cut_off({{1, 0}, {1, 2}, {1, 3}}, 4, false) == 1U);
  CHECK(troupe::cut_off({{0, 2}, {2, 3}}, 4, true) == 2U);
  CHECK(troupe::cut_off({{1, 2}}, 4, true) == 2U);  // one way of many: the later
  CHECK(troupe::cut_off({{1, 0}}, 2, false) == 1U);
}

TEST_CASE("every state has a copy on another node", "[recovery]") {
  for (const auto& [nodes, replicas, stages, shards] :
       std::vector<std::array<int, 4>>{{2, 1, 1, 1}, {4, 1, 2, 4}, {4, 2, 2, 2}, {3, 4, 1, 2}, {4, 4, 2, 1}}) {
    const Config config = laid_out(nodes, replicas, stages, shards);
    const auto places = troupe::place_actors(config);
    for (const Address& owner : troupe::owners(config)) {
      std::set<std::uint32_t> homes;
      for (const Address& same : troupe::holders_of_same(config, owner)) homes.insert(places.at(same));
      INFO(to_string(owner));
      CHECK(homes.size() >= 2);
    }
  }
}

TEST_CASE("whatever node is lost, all come to the version that the others hold", "[recovery]") {
  const Config config = laid_out(4, 2, 2, 2);
  for (std::uint32_t node = 0; node < 4; ++node) {
    auto standings = all_at(config, 7);
    lose(standings, config, node);
    const auto plan = plan_recovery(config, {1, 3, "old", false}, standings);
    CHECK(plan.version == 7);
    CHECK(!plan.from_disk);
    REQUIRE(plan.decision);
    CHECK(plan.decision->step == 6);
    for (const auto& [holder, standing] : standings) {
      CHECK(plan.fetch.contains(holder) == (standing.version < 0));
      if (standing.version < 0) CHECK(standings.at(plan.fetch.at(holder)).version == 7);
    }
  }
}

TEST_CASE("a decision that one holder saw stands for all", "[recovery]") {
  const Config config = laid_out(4, 1, 1, 4);
  auto standings = all_at(config, 7);
  for (auto& [holder, standing] : standings) standing.voted = true;
  standings.begin()->second.decision.step = 7;  // the conductor died when it had told one
  lose(standings, config, 3);
  const auto plan = plan_recovery(config, {1, 0, "", false}, standings);
  CHECK(plan.version == 8);
  REQUIRE(plan.decision);
  CHECK(plan.decision->step == 7);
  for (const auto& [holder, standing] : standings) CHECK(plan.fetch.contains(holder) == (standing.version < 0));
}

TEST_CASE("when an owner and its copy are lost, all go back to the file", "[recovery]") {
  const Config config = laid_out(4, 1, 1, 4);
  auto standings = all_at(config, 7);
  lose(standings, config, 1);
  lose(standings, config, 2);
  const auto plan = plan_recovery(config, {1, 5, "file", false}, standings);
  CHECK(plan.from_disk);
  CHECK(plan.version == 5);
  CHECK(plan.fetch.empty());
  CHECK(plan_recovery(config, {1, 5, "file", false}, all_at(config, -1)).from_disk);  // the start
}

// ---- The bill -------------------------------------------------------------------------------------------------------

namespace {

// The bins sum to threads x wall time within 0.1 %, and to the cost that the last step showed, all but the end.
nlohmann::json expect_whole_bill(const std::string& run) {
  const auto bills = metrics_of(run, "bill");
  REQUIRE(!bills.empty());
  double sum = 0;
  const nlohmann::json& last = bills.back();
  for (const auto& [bin, spent] : last.at("thread_seconds").items()) {
    INFO(bin << " " << spent);
    CHECK(spent.get<double>() >= 0);
    sum += spent.get<double>();
  }
  INFO(last.dump());
  CHECK(sum == Approx(last.at("wall_thread_seconds").get<double>()).epsilon(0.001));
  CHECK(last.at("cost_dollars") == Approx(sum / 3600 * 0.1).epsilon(0.001));  // a node of one thread costs $0.1 an hour
  CHECK(last.at("cost_dollars") >= metrics_of(run, "step").back().at("cost_dollars"));
  return last;
}

double spent(const nlohmann::json& bill, const char* bin) { return bill.at("thread_seconds").at(bin); }

}  // namespace

TEST_CASE("an undisturbed run's bill is whole and knows of no redo", "[recovery][bill]") {
  const Folder folder;
  expect_success(tiny_run(folder / "run", {"train.steps=60"}));
  const auto bill = expect_whole_bill(folder / "run");
  CHECK(spent(bill, "redo") == 0);
  CHECK(spent(bill, "useful") > 0);
}

TEST_CASE("a stopped process is paid for as redo, and the bill is whole", "[recovery][bill]") {
  const Folder folder;
  const std::string run = folder / "run";
  Process process(troupe_command(tiny_run(run, kLong + kShards)), 120'000);
  disturb(process, run, {SIGSTOP, SIGKILL}, 5);
  const Ended ended = process.wait();
  INFO(ended.out << ended.err);
  REQUIRE(ended.code == 0);
  const auto bill = expect_whole_bill(run);
  CHECK(bill.at("losses") == 2);
  CHECK(spent(bill, "redo") > 4 * 1.5);  // the silence alone, of four nodes
  CHECK_THAT(ended.out, Catch::Contains("; 2 lost"));
}

TEST_CASE("a run that was killed and goes on pays for the lost tail as redo", "[recovery][bill]") {
  const Folder folder;
  const std::string run = folder / "run";
  const Arguments sets{"train.steps=100000", "checkpoint.every_steps=100000"};
  {
    Process process(troupe_command(tiny_run(run, sets)), 60'000);
    REQUIRE(process.follow([&] { return metrics_of(run, "bill").size() >= 2; }));
  }
  const auto before = metrics_of(run, "bill").back();
  const Ended ended = troupe::test::run(troupe_command(tiny_resume(run, sets)), 4000);
  INFO(ended.out << ended.err);
  const auto after = metrics_of(run, "bill").back();
  CHECK(after.at("wall_thread_seconds") > before.at("wall_thread_seconds").get<double>());
  CHECK(spent(after, "redo") == Approx(before.at("total_thread_seconds").get<double>() - spent(before, "start-up")));
  double sum = 0;
  for (const auto& [bin, seconds] : after.at("thread_seconds").items()) sum += seconds.get<double>();
  CHECK(sum == Approx(after.at("wall_thread_seconds").get<double>()).epsilon(0.001));
}
