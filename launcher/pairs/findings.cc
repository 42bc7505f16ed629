// A slow host makes all of its pairs slow, so hosts are judged first, each by the best of its pairs; pairs of a host that
// was named are not named again.
#include "launcher/pairs/findings.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

namespace troupe {

namespace {

constexpr double kSlow = 0.5;              // of the median
constexpr double kLate = 3, kLateUs = 50;  // times the median, and by so much
constexpr double kClockUs = 100'000;       // logs of several hosts are read side by side
constexpr std::size_t kPairsNamedMax = 8;

Finding stops(std::string sentence) { return {.stops_runs = true, .sentence = std::move(sentence)}; }
Finding advice(std::string sentence) { return {.stops_runs = false, .sentence = std::move(sentence)}; }

double slower_way(const PairFigures& f) { return std::min(f.in, f.out); }

std::string rate_text(double bytes_per_second) { return fmt::format("{:.3g} GB/s", bytes_per_second * 1e-9); }

std::string name_of(const HostsFacts& facts, const HostPair& pair) {
  return fmt::format("{} and {}", facts.hosts[pair.a].name, facts.hosts[pair.b].name);
}

// ---- Of each host ---------------------------------------------------------------------------------------------------

// The same of several hosts is said once.
void add_alike(const HostsFacts& facts, const std::function<std::vector<std::string>(const HostFacts&)>& sentences_of,
               bool stops_runs, Findings& found) {
  std::vector<std::pair<std::string, std::vector<std::string>>> told;
  for (const HostFacts& host : facts.hosts)
    for (const std::string& sentence : sentences_of(host)) {
      auto at = std::find_if(told.begin(), told.end(), [&](const auto& one) { return one.first == sentence; });
      if (at == told.end()) at = told.insert(told.end(), {sentence, {}});
      at->second.push_back(host.name);
    }
  for (const auto& [sentence, hosts] : told) {
    const bool every = hosts.size() > 2 && hosts.size() == facts.hosts.size();
    const std::string names = every ? "every host" : fmt::format("{}", fmt::join(hosts, ", "));
    found.push_back({stops_runs, fmt::format("{}: {}", names, sentence)});
  }
}

void add_hosts(const HostsFacts& facts, Findings& found) {
  using Sentences = std::vector<std::string>;
  const auto problem = [](const HostFacts& host) {
    return host.problem.empty() ? Sentences{} : Sentences{host.problem};
  };
  add_alike(facts, problem, true, found);
  add_alike(
      facts, [](const HostFacts& host) { return host.problems; }, true, found);
  add_alike(
      facts, [](const HostFacts& host) { return host.advice; }, false, found);
  for (const HostFacts& host : facts.hosts)
    if (std::abs(host.clock_ahead_us) - host.clock_doubt_us > kClockUs)
      found.push_back(advice(fmt::format(
          "{}: its clock is {:.1f} s {} this machine's, so that its logs and others' don't fit together: "
          "start chronyd or ntpd there",
          host.name, std::abs(host.clock_ahead_us) * 1e-6, host.clock_ahead_us > 0 ? "ahead of" : "behind")));
}

// What most hosts say, and who says something else.
void add_different(const HostsFacts& facts, std::string HostFacts::*what, Findings& found,
                   const std::function<Finding(const HostFacts&, const std::string&)>& tell) {
  std::map<std::string, int> counts;
  for (const HostFacts& host : facts.hosts)
    if (!(host.*what).empty()) ++counts[host.*what];
  if (counts.size() < 2) return;
  const auto most =
      std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  for (const HostFacts& host : facts.hosts)
    if (!(host.*what).empty() && host.*what != most->first) found.push_back(tell(host, most->first));
}

void add_differences(const HostsFacts& facts, Findings& found) {
  add_different(facts, &HostFacts::machine, found, [](const HostFacts& host, const std::string& most) {
    return stops(
        fmt::format("{}: it is \"{}\" where the others are \"{}\", and all hosts of a run must be of one kind: "
                    "leave it out, or run on those like it",
                    host.name, host.machine, most));
  });
  add_different(facts, &HostFacts::ports, found, [](const HostFacts& host, const std::string& most) {
    std::string spaced = most;
    std::replace(spaced.begin(), spaced.end(), '-', ' ');
    return advice(
        fmt::format("{}: nodes listen at its ports {} where the others have {}, so a firewall needs a hole of "
                    "its own there: sysctl -w net.ipv4.ip_local_port_range=\"{}\"",
                    host.name, host.ports, most, spaced));
  });
}

// ---- Of pairs -------------------------------------------------------------------------------------------------------

// The hosts whose best pair is slow beside that of others.
std::set<std::size_t> slow_hosts(const HostsFacts& facts, double& median) {
  std::map<std::size_t, double> best;
  for (const PairFacts& pair : facts.pairs) {
    if (!pair.figures) continue;
    for (const std::size_t host : {pair.hosts.a, pair.hosts.b})
      best[host] = std::max(best[host], slower_way(*pair.figures));
  }
  std::vector<double> bests;
  for (const auto& [host, rate] : best) bests.push_back(rate);
  median = median_of(bests);
  std::set<std::size_t> slow;
  for (const auto& [host, rate] : best)
    if (best.size() > 2 && rate < kSlow * median) slow.insert(host);
  return slow;
}

void add_slow(const HostsFacts& facts, Findings& found) {
  double median_best = 0;
  const std::set<std::size_t> slow = slow_hosts(facts, median_best);
  for (const std::size_t host : slow)
    found.push_back(
        advice(fmt::format("{}: it is slow with every other host, under half of the {} that others reach: "
                           "look at its cable, its port of the switch and its interface's speed (ethtool)",
                           facts.hosts[host].name, rate_text(median_best))));
  std::vector<double> rates, halves;
  for (const PairFacts& pair : facts.pairs) {
    if (!pair.figures || slow.contains(pair.hosts.a) || slow.contains(pair.hosts.b)) continue;
    rates.push_back(slower_way(*pair.figures));
    halves.push_back(pair.figures->half_trip_us);
  }
  const double rate = median_of(rates), half_us = median_of(halves);
  std::size_t named = 0;
  for (const PairFacts& pair : facts.pairs) {
    if (!pair.figures || slow.contains(pair.hosts.a) || slow.contains(pair.hosts.b)) continue;
    const PairFigures& f = *pair.figures;
    const HostFacts &a = facts.hosts[pair.hosts.a], &b = facts.hosts[pair.hosts.b];
    Findings here;
    if (slower_way(f) < kSlow * rate)
      here.push_back(advice(fmt::format(
          "{} to {}: {}, under half of the median of all pairs ({}): look at the way between "
          "them, cables and ports of switches",
          f.out < f.in ? a.name : b.name, f.out < f.in ? b.name : a.name, rate_text(slower_way(f)), rate_text(rate))));
    else if (slower_way(f) < kSlow * std::max(f.in, f.out))
      here.push_back(
          advice(fmt::format("{} to {}: {}, and {} the other way: look for a cable or port that doesn't work "
                             "both ways alike",
                             f.out < f.in ? a.name : b.name, f.out < f.in ? b.name : a.name, rate_text(slower_way(f)),
                             rate_text(std::max(f.in, f.out)))));
    if (f.half_trip_us > kLate * half_us && f.half_trip_us > half_us + kLateUs)
      here.push_back(
          advice(fmt::format("{}: a small message takes {:.0f} us one way where the median is {:.0f} us: is the "
                             "way longer, or one of them busy?",
                             name_of(facts, pair.hosts), f.half_trip_us, half_us)));
    for (Finding& finding : here)
      if (named++ < kPairsNamedMax) found.push_back(std::move(finding));
  }
  if (named > kPairsNamedMax)
    found.push_back(advice(fmt::format("and {} more of this kind: --json has every pair", named - kPairsNamedMax)));
}

void add_silent(const HostsFacts& facts, Findings& found) {
  for (const PairFacts& pair : facts.pairs)
    if (!pair.problem.empty() && facts.hosts[pair.hosts.a].problem.empty() && facts.hosts[pair.hosts.b].problem.empty())
      found.push_back(stops(fmt::format(
          "{}: they can't talk{}{} ({}): is a firewall between them (nodes listen at any of their own ports), or "
          "--interface the wrong one?",
          name_of(facts, pair.hosts), facts.interface.empty() ? "" : " over ", facts.interface, pair.problem)));
}

// A pair talks over InfiniBand or RoCE where both have it, unless --interface names a network.
void add_infiniband(const HostsFacts& facts, Findings& found) {
  if (facts.transport != "any") return;
  std::vector<std::string> with, without;
  for (const HostFacts& host : facts.hosts)
    if (host.problem.empty()) (host.infiniband.empty() ? without : with).push_back(host.name);
  const bool names_port = facts.interface.find(':') != std::string::npos;  // who lacks it has refused to start
  if (with.size() >= 2 && !facts.interface.empty() && !names_port)
    found.push_back(advice(
        fmt::format("{} have InfiniBand, which --interface {} leaves alone: leave that out, or name an adapter's port "
                    "(--interface mlx5_0:1)",
                    fmt::join(with, ", "), facts.interface)));
  if (!with.empty() && !without.empty() && facts.interface.empty())
    found.push_back(advice(fmt::format(
        "{} {} no InfiniBand that UCX finds, as others have, so pairs with {} talk over TCP: `ibstat` there tells "
        "whether an adapter's link is up",
        fmt::join(without, ", "), without.size() == 1 ? "has" : "have", without.size() == 1 ? "it" : "them")));
}

}  // namespace

double median_of(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

Findings findings_of(const HostsFacts& facts) {
  Findings found;
  add_hosts(facts, found);
  add_differences(facts, found);
  add_silent(facts, found);
  add_slow(facts, found);
  add_infiniband(facts, found);
  std::stable_partition(found.begin(), found.end(), [](const Finding& finding) { return finding.stops_runs; });
  return found;
}

std::string why_absent(const std::string& host, const std::string& words, int code, const std::string& program) {
  const auto says = [&](const char* part) { return words.find(part) != std::string::npos; };
  const std::string told = words.empty() ? "nothing was said" : words;
  if (says("can't reach its launcher"))
    return fmt::format("a process started there, but {}; let the port through (--ports tells which)",
                       words.substr(words.find("node ")));
  if (code == 126 || code == 127 || says("not found") || says("No such file"))
    return fmt::format("the program can't be started there ({}): install this build at {}, or give --program", told,
                       program);
  if (says("is not a command") || says("was not expected") || says("--join"))
    return fmt::format("another build is at {} there ({}): all hosts must have this one", program, told);
  if (code == -1) return fmt::format("it can't be reached in time ({}): `ssh {} true` must work at once", told, host);
  return fmt::format("it can't be reached ({}): `ssh {} true` must work, without a password", told, host);
}

}  // namespace troupe
