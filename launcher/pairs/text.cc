// The screen: a line a host, then a table of bytes a second and one of latency, then what to fix. Of more hosts than fit
// side by side only the extremes are shown.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "launcher/pairs/findings.h"

namespace troupe {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kTableMax = 12, kExtremes = 5;

const PairFacts* pair_of(const HostsFacts& facts, std::size_t a, std::size_t b) {
  for (const PairFacts& pair : facts.pairs)
    if (pair.hosts == HostPair{std::min(a, b), std::max(a, b)}) return &pair;
  return nullptr;
}

std::string rate(double bytes_per_second) { return fmt::format("{:#.3g}", bytes_per_second * 1e-9); }

// With a digit behind the point where there is one before it.
std::string micros(double us) { return fmt::format("{:.{}f}", us, us < 10 ? 1 : 0); }

std::string clock_text(const HostFacts& host) {
  if (std::abs(host.clock_ahead_us) <= host.clock_doubt_us)
    return fmt::format("clock as here, within {:.2f} ms", host.clock_doubt_us * 1e-3);
  return fmt::format("clock {:+.2f} ms, within {:.2f}", host.clock_ahead_us * 1e-3, host.clock_doubt_us * 1e-3);
}

std::string host_lines(const HostsFacts& facts) {
  std::size_t width = 0;
  for (const HostFacts& host : facts.hosts) width = std::max(width, host.name.size());
  std::string text;
  for (const HostFacts& host : facts.hosts) {
    if (host.version.empty())
      text += fmt::format("{:<{}}  not there\n", host.name, width);
    else
      text += fmt::format("{:<{}}  {}; {} cores; {}; {}\n", host.name, width, host.processor, host.cores,
                          host.gpus.empty() ? "no GPU" : host.gpus, clock_text(host));
  }
  return text;
}

// A table host x host; `cell` of two that were measured.
template <typename Cell>
std::string table(const HostsFacts& facts, Cell cell) {
  std::vector<std::vector<std::string>> rows(1, {""});
  for (const HostFacts& host : facts.hosts) rows[0].push_back(host.name);
  for (std::size_t a = 0; a < facts.hosts.size(); ++a) {
    auto& row = rows.emplace_back(1, facts.hosts[a].name);
    for (std::size_t b = 0; b < facts.hosts.size(); ++b) {
      const PairFacts* pair = a == b ? nullptr : pair_of(facts, a, b);
      row.push_back(a == b ? "" : pair == nullptr || !pair->figures ? "-" : cell(*pair->figures, a < b));
    }
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t column = 0; column < row.size(); ++column) {
      std::size_t width = 0;
      for (const auto& other : rows) width = std::max(width, other[column].size());
      line += column == 0 ? fmt::format("  {:<{}}", row[column], width) : fmt::format("  {:>{}}", row[column], width);
    }
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

std::string tables(const HostsFacts& facts) {
  return "GB/s of large messages, from the host of the line to that of the column:\n" +
         table(facts, [](const PairFigures& f, bool out) { return rate(out ? f.out : f.in); }) +
         "GB/s of both ways at once, added up:\n" +
         table(facts, [](const PairFigures& f, bool) { return rate(f.both); }) +
         "us of a small message one way, half of its round trip: median (99th percentile):\n" +
         table(facts, [](const PairFigures& f, bool) {
           return fmt::format("{} ({})", micros(f.half_trip_us), micros(f.half_trip_us_99));
         });
}

// Of many hosts: the slowest pairs beside the median.
std::string extremes(const HostsFacts& facts) {
  std::vector<const PairFacts*> pairs;
  std::vector<double> rates, halves;
  for (const PairFacts& pair : facts.pairs) {
    if (!pair.figures) continue;
    pairs.push_back(&pair);
    rates.push_back(std::min(pair.figures->in, pair.figures->out));
    halves.push_back(pair.figures->half_trip_us);
  }
  if (pairs.empty()) return "no pair was measured\n";
  std::stable_sort(pairs.begin(), pairs.end(), [](const PairFacts* a, const PairFacts* b) {
    return std::min(a->figures->in, a->figures->out) < std::min(b->figures->in, b->figures->out);
  });
  std::string text = fmt::format("{} pairs, median {} GB/s one way, {:.0f} us; the slowest (--json has all):\n",
                                 pairs.size(), rate(median_of(rates)), median_of(halves));
  for (std::size_t i = 0; i < std::min(kExtremes, pairs.size()); ++i) {
    const PairFigures& f = *pairs[i]->figures;
    text += fmt::format("  {} to {}: {} GB/s, back {}, both at once {}; {} us ({})\n",
                        facts.hosts[pairs[i]->hosts.a].name, facts.hosts[pairs[i]->hosts.b].name, rate(f.out),
                        rate(f.in), rate(f.both), micros(f.half_trip_us), micros(f.half_trip_us_99));
  }
  return text;
}

std::string head(const HostsFacts& facts) {
  const std::size_t hosts = facts.hosts.size();
  std::string version;
  for (const HostFacts& host : facts.hosts)
    if (version.empty()) version = host.version;
  const std::string network = facts.transport != "any"  ? "shared memory"
                              : facts.interface.empty() ? "InfiniBand where both ends have it, else TCP"
                                                        : facts.interface;
  return fmt::format(
      "{}{}{} {}, {} {}, over {}: {}\n", version, version.empty() ? "" : "\n", hosts, hosts == 1 ? "host" : "hosts",
      facts.pairs.size(), facts.pairs.size() == 1 ? "pair" : "pairs", network,
      facts.together ? "pairs that share no host measured at the same time" : "one pair at a time, the others idle");
}

std::string last_line(const Findings& findings) {
  const auto problems = std::count_if(findings.begin(), findings.end(), [](const Finding& f) { return f.stops_runs; });
  return problems == 0   ? "a run can start on these hosts\n"
         : problems == 1 ? "1 problem keeps runs from these hosts\n"
                         : fmt::format("{} problems keep runs from these hosts\n", problems);
}

}  // namespace

std::string hosts_text(const HostsFacts& facts, const Findings& findings) {
  std::string text = head(facts) + host_lines(facts) + "\n";
  if (!facts.pairs.empty()) text += (facts.hosts.size() > kTableMax ? extremes(facts) : tables(facts)) + "\n";
  for (const Finding& finding : findings)
    text += fmt::format("{}: {}\n", finding.stops_runs ? "problem" : "advice", finding.sentence);
  return text + last_line(findings);
}

std::string hosts_json(const HostsFacts& facts, const Findings& findings) {
  Json problems = Json::array(), advice = Json::array(), hosts = Json::array(), pairs = Json::array();
  for (const Finding& finding : findings) (finding.stops_runs ? problems : advice).push_back(finding.sentence);
  for (const HostFacts& host : facts.hosts)
    hosts.push_back({{"name", host.name},
                     {"problem", host.problem},
                     {"machine", host.machine},
                     {"ports", host.ports},
                     {"clock_ahead_us", host.clock_ahead_us},
                     {"clock_doubt_us", host.clock_doubt_us},
                     {"doctor", host.doctor.empty() ? Json() : Json::parse(host.doctor, nullptr, false)}});
  for (const PairFacts& pair : facts.pairs) {
    Json told = {
        {"a", facts.hosts[pair.hosts.a].name}, {"b", facts.hosts[pair.hosts.b].name}, {"problem", pair.problem}};
    told["measured"] = pair.figures.has_value();
    if (pair.figures)
      told.update({{"a_to_b_bytes_per_second", pair.figures->out},
                   {"b_to_a_bytes_per_second", pair.figures->in},
                   {"both_bytes_per_second", pair.figures->both},
                   {"message_bytes", pair.figures->message_bytes},
                   {"one_way_us", pair.figures->half_trip_us},
                   {"one_way_us_99", pair.figures->half_trip_us_99}});
    pairs.push_back(told);
  }
  const Json all = {
      {"can_run", can_run(findings)}, {"problems", problems},       {"advice", advice}, {"transport", facts.transport},
      {"interface", facts.interface}, {"together", facts.together}, {"hosts", hosts},   {"pairs", pairs}};
  return all.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace troupe
