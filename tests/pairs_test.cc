// What `troupe doctor --hosts` measures and concludes: rounds, the meter over ways of known speed, findings about hosts
// that aren't there. The command itself: doctor_hosts_test.cc, and real hosts in tests/cluster.
#include <atomic>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "kernels/base/error.h"
#include "launcher/loop.h"
#include "launcher/pairs/findings.h"
#include "launcher/slow_link.h"
#include "messages/in_process.h"

#include "tests/support/catch.h"

namespace troupe {
namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

PairFigures even(double bytes_per_second) {
  return {.half_trip_us = 20,
          .half_trip_us_99 = 40,
          .out = bytes_per_second,
          .in = bytes_per_second,
          .both = 2 * bytes_per_second,
          .message_bytes = 1 << 20};
}

// Hosts without fault, each pair measured.
HostsFacts sound(std::size_t hosts) {
  HostsFacts facts{.transport = "any", .interface = "eth0", .together = false, .hosts = {}, .pairs = {}};
  for (std::size_t i = 0; i < hosts; ++i) {
    HostFacts host;
    host.name = std::string(1, static_cast<char>('a' + i));
    host.version = "troupe 0.1";
    host.processor = host.machine = "EPYC";
    host.cores = 8;
    host.ports = "32768-60999";
    facts.hosts.push_back(host);
  }
  for (const auto& round : rounds_of(hosts, false)) facts.pairs.push_back({round[0], even(10e9), ""});
  return facts;
}

PairFigures& between(HostsFacts& facts, std::size_t a, std::size_t b) {
  for (PairFacts& pair : facts.pairs)
    if (pair.hosts == HostPair{a, b}) return *pair.figures;
  throw Error("no such pair");
}

// The only finding; it says all of `parts`.
void expect_only(const HostsFacts& facts, bool stops_runs, const std::vector<std::string>& parts) {
  const Findings findings = findings_of(facts);
  INFO(hosts_text(facts, findings));
  REQUIRE(findings.size() == 1);
  CHECK(findings[0].stops_runs == stops_runs);
  CHECK(!findings[0].sentence.ends_with("."));
  for (const std::string& part : parts) {
    INFO(part);
    CHECK(has(findings[0].sentence, part));
  }
}
void expect_advice(const HostsFacts& facts, const std::vector<std::string>& parts) { expect_only(facts, false, parts); }
void expect_problem(const HostsFacts& facts, const std::vector<std::string>& parts) { expect_only(facts, true, parts); }

// Two ends in threads of their own, over a way of that delay and speed each way.
PairFigures measured(std::int64_t delay_ns, double bytes_per_ns) {
  auto ends = make_in_process_transports(2);
  for (auto& end : ends) end = make_slow_link(std::move(end), {delay_ns, bytes_per_ns, {}});
  PayloadPool pools[2];
  const auto options = [](std::uint32_t peer) {
    PairMeterOptions told;
    told.peer = peer;
    told.match = 7;
    told.flood_us = 200'000;
    told.message_max = 1 << 20;
    told.round_trips = 50;
    return told;
  };
  std::atomic<bool> over = false;
  std::thread follower([&] {
    PairMeter(*ends[1], pools[1], options(0), [] {}).follow();
    over = true;
  });
  const PairFigures figures = PairMeter(*ends[0], pools[0], options(1), [] {}).lead();
  while (!over) ends[0]->poll([](const Frame&) {});  // its last word is still on the slow way
  follower.join();
  return figures;
}

}  // namespace

TEST_CASE("every pair is measured once, and in a round of several no host twice", "[pairs]") {
  for (const bool together : {false, true})
    for (std::size_t hosts = 0; hosts <= 17; ++hosts) {
      std::set<std::pair<std::size_t, std::size_t>> seen;
      const auto rounds = rounds_of(hosts, together);
      for (const auto& round : rounds) {
        std::set<std::size_t> in_round;
        for (const HostPair& pair : round) {
          CHECK((pair.a < pair.b && pair.b < hosts));
          CHECK(seen.emplace(pair.a, pair.b).second);
          CHECK((in_round.insert(pair.a).second && in_round.insert(pair.b).second));
        }
      }
      CHECK(seen.size() == hosts * (hosts - (hosts > 0)) / 2);
      if (together && hosts > 1) CHECK(rounds.size() == hosts - 1 + hosts % 2);
      if (!together) CHECK(rounds.size() == seen.size());
    }
}

TEST_CASE("the meter finds the delay and the speed of a way that is known, each way and both", "[pairs]") {
  const PairFigures figures = measured(2'000'000, 0.05);  // 2 ms, 50 MB/s each way
  CHECK(figures.half_trip_us >= 2000);
  CHECK(figures.half_trip_us < 4000);  // the rest is for a busy machine
  CHECK(figures.half_trip_us_99 >= figures.half_trip_us);
  for (const double rate : {figures.out, figures.in}) {
    CHECK(rate > 0.8 * 50e6);
    CHECK(rate < 1.05 * 50e6);
  }
  CHECK(figures.both > 0.8 * 100e6);
  CHECK(figures.both < 1.05 * 100e6);
}

TEST_CASE("on a slow way messages are small, so that it is measured in time", "[pairs]") {
  const std::int64_t from_us = monotonic_us();
  const PairFigures figures = measured(0, 0.002);  // 2 MB/s
  CHECK(figures.message_bytes == 64 << 10);
  CHECK(figures.out > 0.8 * 2e6);
  CHECK(figures.out < 1.05 * 2e6);
  CHECK(monotonic_us() - from_us < 5'000'000);
}

TEST_CASE("an end that hears nothing gives up, and one that is told to stop does", "[pairs]") {
  auto ends = make_in_process_transports(2);
  PayloadPool pool;
  PairMeterOptions options;
  options.peer = 1;
  options.silence_us = 100'000;
  CHECK_THROWS_WITH(PairMeter(*ends[0], pool, options, [] {}).lead(), "nothing was heard for 100 ms");
  struct Told {};
  CHECK_THROWS_AS(PairMeter(*ends[0], pool, options, [] { throw Told(); }).follow(), Told);
}

TEST_CASE("sound hosts have no finding", "[pairs]") {
  for (const std::size_t hosts : {1, 2, 3, 9}) CHECK(findings_of(sound(hosts)).empty());
}

TEST_CASE("a pair under half of the median is told, with the slow way, and one a little under isn't", "[pairs]") {
  HostsFacts facts = sound(4);
  between(facts, 1, 2).in = 4.9e9;
  between(facts, 1, 2).out = 4.8e9;
  expect_advice(facts, {"b to c: 4.8 GB/s, under half of the median of all pairs (10 GB/s)", "cables"});
  between(facts, 1, 2) = even(5.1e9);
  CHECK(findings_of(facts).empty());
}

TEST_CASE("a host that is slow with every other is named once, of three hosts too", "[pairs]") {
  for (const std::size_t hosts : {3, 5}) {
    HostsFacts facts = sound(hosts);
    for (std::size_t other = 0; other < hosts; ++other)
      if (other != 1) between(facts, std::min<std::size_t>(1, other), std::max<std::size_t>(1, other)) = even(1e9);
    expect_advice(facts, {"b: it is slow with every other host", "10 GB/s", "ethtool"});
  }
  HostsFacts two = sound(2);
  between(two, 0, 1) = even(1e6);
  CHECK(findings_of(two).empty());  // there is nothing to compare with
}

TEST_CASE("a way that is slow in one direction alone is told, of two hosts too", "[pairs]") {
  HostsFacts facts = sound(2);
  between(facts, 0, 1).in = 3e9;
  expect_advice(facts, {"b to a: 3 GB/s, and 10 GB/s the other way"});
}

TEST_CASE("a pair whose messages take much longer than others' is told", "[pairs]") {
  HostsFacts facts = sound(4);
  between(facts, 0, 3).half_trip_us = 500;
  expect_advice(facts, {"a and d: a small message takes 500 us one way where the median is 20 us"});
}

TEST_CASE("of very many slow pairs a few are named, and the rest counted", "[pairs]") {
  HostsFacts facts = sound(12);
  for (std::size_t i = 0; i < 10; ++i) between(facts, i, i + 1).in = 1e9;
  const Findings findings = findings_of(facts);
  REQUIRE(findings.size() == 9);
  CHECK(has(findings.back().sentence, "and 2 more"));
}

TEST_CASE("a host that isn't there stops runs, and its pairs add nothing", "[pairs]") {
  HostsFacts facts = sound(3);
  facts.hosts[2].problem = "it is lost: silent for 5000 ms";
  facts.pairs[1] = {{0, 2}, std::nullopt, "a says: nothing was heard for 5000 ms"};
  facts.pairs[2] = {{1, 2}, std::nullopt, ""};
  expect_problem(facts, {"c: it is lost: silent for 5000 ms"});
  CHECK(has(hosts_text(facts, findings_of(facts)), "1 problem keeps runs from these hosts\n"));
}

TEST_CASE("two hosts that are there and can't talk stop runs", "[pairs]") {
  HostsFacts facts = sound(2);
  facts.pairs[0] = {{0, 1}, std::nullopt, "a says: nothing was heard for 5000 ms"};
  expect_problem(facts, {"a and b: they can't talk over eth0", "a says: nothing was heard", "firewall"});
}

TEST_CASE("a host of another kind stops runs, and other ports and clocks are told", "[pairs]") {
  HostsFacts facts = sound(3);
  facts.hosts[1].machine = "Xeon";
  expect_problem(facts, {"b: it is \"Xeon\" where the others are \"EPYC\""});
  facts = sound(3);
  facts.hosts[1].ports = "1024-4999";
  expect_advice(facts, {"b: nodes listen at its ports 1024-4999", "ip_local_port_range=\"32768 60999\""});
  facts = sound(3);
  facts.hosts[2].clock_ahead_us = -3.2e6;
  facts.hosts[2].clock_doubt_us = 500;
  expect_advice(facts, {"c: its clock is 3.2 s behind this machine's", "ntpd"});
  facts.hosts[2].clock_doubt_us = 3.15e6;  // it may as well be right
  CHECK(findings_of(facts).empty());
}

TEST_CASE("InfiniBand that an interface leaves alone is told, and who has none where others have it", "[pairs]") {
  HostsFacts facts = sound(3);
  facts.hosts[0].infiniband = {"mlx5_0:1"};
  CHECK(findings_of(facts).empty());  // eth0 was asked for, and no pair could have more
  facts.hosts[2].infiniband = {"mlx5_0:1"};
  expect_advice(facts, {"a, c have InfiniBand", "--interface eth0 leaves alone", "--interface mlx5_0:1"});
  facts.interface = "";
  expect_advice(facts, {"b has no InfiniBand", "pairs with it talk over TCP", "ibstat"});
  facts.hosts[0].infiniband = {};
  expect_advice(facts, {"a, b have no InfiniBand", "pairs with them talk over TCP"});
  facts.hosts[0].infiniband = facts.hosts[1].infiniband = {"mlx5_0:1"};
  CHECK(findings_of(facts).empty());
  facts.interface = "mlx5_0:1";
  CHECK(findings_of(facts).empty());
}

TEST_CASE("what a host's doctor says is told with the host, and what all say once", "[pairs]") {
  HostsFacts facts = sound(3);
  facts.hosts[1].problems = {"disk: full"};
  expect_problem(facts, {"b: disk: full"});
  facts = sound(3);
  for (HostFacts& host : facts.hosts) host.advice = {"memory: few"};
  expect_advice(facts, {"every host: memory: few"});
  facts.hosts[1].advice.clear();
  expect_advice(facts, {"a, c: memory: few"});
}

TEST_CASE("why a host is absent is told from what was said there", "[pairs]") {
  const auto why = [](const std::string& words, int code) { return why_absent("h", words, code, "/bin/troupe"); };
  CHECK(has(why("ssh: connect to host h port 22: No route to host", 255), "can't be reached (ssh: connect to host h"));
  CHECK(has(why("ssh: connect", 255), "`ssh h true` must work"));
  CHECK(has(why("", -1), "can't be reached in time"));
  CHECK(has(why("sh: 1: exec: /bin/troupe: not found", 127), "install this build at /bin/troupe, or give --program"));
  const std::string firewall = why("troupe: node 0 can't reach its launcher: 10.0.0.1:5 doesn't answer", 1);
  CHECK(has(firewall, "but node 0 can't reach its launcher: 10.0.0.1:5 doesn't answer"));
  CHECK(has(firewall, "--ports"));
  CHECK(has(why("troupe: node is not a command", 2), "another build is at /bin/troupe there"));
}

TEST_CASE("the table shows each way, and of many hosts the slowest pairs", "[pairs]") {
  HostsFacts facts = sound(3);
  between(facts, 0, 1).out = 1.25e9;
  facts.pairs[2].figures.reset();
  const std::string text = hosts_text(facts, {});
  INFO(text);
  CHECK(has(text, "3 hosts, 3 pairs, over eth0: one pair at a time, the others idle\n"));
  CHECK(has(text, "  a        1.25  10.0\n  b  10.0           -\n  c  10.0     -\n"));
  CHECK(has(text, "  a           20 (40)  20 (40)\n"));
  CHECK(text.ends_with("a run can start on these hosts\n"));
  HostsFacts many = sound(13);
  many.together = true;
  between(many, 3, 5).in = 1e9;
  const std::string short_text = hosts_text(many, {});
  INFO(short_text);
  CHECK(has(short_text, "pairs that share no host measured at the same time"));
  CHECK(
      has(short_text,
          "78 pairs, median 10.0 GB/s one way, 20 us; the slowest (--json has all):\n  d to f: 10.0 GB/s, back 1.00,"));
}

TEST_CASE("the JSON of hosts has every pair, measured or not", "[pairs]") {
  HostsFacts facts = sound(3);
  facts.hosts[0].doctor = R"({"version": "x"})";
  facts.pairs[2] = {{1, 2}, std::nullopt, "no figures"};
  const auto told = nlohmann::json::parse(hosts_json(facts, findings_of(facts)));
  CHECK(told["can_run"] == false);
  CHECK(told["problems"].size() == 1);
  CHECK(told["hosts"][0]["doctor"]["version"] == "x");
  CHECK(told["hosts"][1]["doctor"].is_null());
  CHECK(told["pairs"][0]["a_to_b_bytes_per_second"] == 10e9);
  CHECK(told["pairs"][0]["one_way_us"] == 20);
  CHECK(told["pairs"][2]["measured"] == false);
  CHECK(told["pairs"][2]["problem"] == "no figures");
}

}  // namespace troupe
