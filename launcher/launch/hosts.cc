#include "launcher/launch/hosts.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <sstream>

#include "kernels/base/error.h"

namespace troupe {

namespace {

constexpr std::size_t kNamesMax = 1'000'000;

// A whole number without sign, all of the text; empty: it is none.
std::optional<long> number_of(const std::string& text) {
  long value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || text[0] == '-' || problem != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Cuts at commas that are in no brackets.
std::vector<std::string> cut(const std::string& list) {
  std::vector<std::string> parts(1);
  int depth = 0;
  for (const char c : list) {
    depth += c == '[' ? 1 : c == ']' ? -1 : 0;
    if (c == ',' && depth == 0)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

[[noreturn]] void no_list(const std::string& list) {
  throw Error("\"{}\" is no list of nodes such as node[1-4,7],login", list);
}

// "1-3" or "7", with the zeros it was written with.
void add_range(const std::string& range, const std::string& list, std::vector<std::string>& out) {
  const std::size_t dash = range.find('-');
  const std::string first = range.substr(0, dash), last = dash == std::string::npos ? first : range.substr(dash + 1);
  const auto begin = number_of(first), end = number_of(last);
  if (!begin || !end || *end < *begin || static_cast<std::size_t>(*end - *begin) >= kNamesMax) no_list(list);
  for (long i = *begin; i <= *end; ++i) out.push_back(fmt::format("{:0{}}", i, first.size()));
}

// One name, with any number of brackets.
void add_names(const std::string& name, const std::string& list, std::vector<std::string>& out) {
  const std::size_t open = name.find('[');
  if (open == std::string::npos) {
    if (name.empty() || name.find(']') != std::string::npos) no_list(list);
    return out.push_back(name);
  }
  const std::size_t close = name.find(']', open);
  if (close == std::string::npos) no_list(list);
  std::vector<std::string> middles, tails{""};
  for (const std::string& range : cut(name.substr(open + 1, close - open - 1))) add_range(range, list, middles);
  if (close + 1 < name.size()) {
    tails.clear();
    add_names(name.substr(close + 1), list, tails);
  }
  if (out.size() + middles.size() * tails.size() > kNamesMax) no_list(list);
  for (const std::string& middle : middles)
    for (const std::string& tail : tails) out.push_back(name.substr(0, open) + middle + tail);
}

}  // namespace

std::vector<std::string> expand_node_list(const std::string& list) {
  std::vector<std::string> names;
  for (const std::string& name : cut(list)) add_names(name, list, names);
  return names;
}

std::vector<int> expand_counts(const std::string& counts) {
  std::vector<int> all;
  for (const std::string& part : cut(counts)) {
    const std::size_t times = part.find("(x");
    const auto count = number_of(part.substr(0, times));
    const auto repeated = times == std::string::npos || part.back() != ')'
                              ? std::optional<long>(1)
                              : number_of(part.substr(times + 2, part.size() - times - 3));
    if (!count || !repeated || (times != std::string::npos && part.back() != ')') ||
        all.size() + static_cast<std::size_t>(*repeated) > kNamesMax)
      throw Error("\"{}\" are no counts such as 2,1(x3)", counts);
    all.insert(all.end(), static_cast<std::size_t>(*repeated), static_cast<int>(*count));
  }
  return all;
}

std::vector<HostLine> parse_hosts(const std::string& text, const std::string& path) {
  std::vector<HostLine> hosts;
  std::istringstream lines(text);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    std::istringstream words(line.substr(0, line.find('#')));
    HostLine host;
    if (!(words >> host.name)) continue;
    for (std::string word; words >> word;) {
      const auto slots = word.starts_with("slots=") ? number_of(word.substr(6)) : std::nullopt;
      if (!slots || *slots < 1 || *slots > 1024)
        throw Error("{}:{}: \"{}\" isn't understood; a line is a host's name and slots=N, processes it takes", path,
                    number, word);
      host.slots = static_cast<int>(*slots);
    }
    if (host.name[0] == '-')  // it would be an option of ssh
      throw Error("{}:{}: \"{}\" is no host's name", path, number, host.name);
    hosts.push_back(host);
  }
  if (hosts.empty()) throw Error("{}: names no host", path);
  return hosts;
}

std::pair<std::uint16_t, std::uint16_t> parse_ports(const std::string& text) {
  const std::size_t dash = text.find('-');
  const auto first = number_of(text.substr(0, dash));
  const auto last = dash == std::string::npos ? first : number_of(text.substr(dash + 1));
  if (!first || !last || *last < *first || *last > 65535 || (*first == 0 && *last != 0))
    throw Error("\"{}\" are no ports, such as 4711 or 4711-4720; 0 is any", text);
  return {static_cast<std::uint16_t>(*first), static_cast<std::uint16_t>(*last)};
}

OnWhat parse_on(const std::string& text) {
  OnWhat on;
  const std::size_t colon = text.find(':');
  const std::string kind = text.substr(0, colon), more = colon == std::string::npos ? "" : text.substr(colon + 1);
  if (kind == "slurm" && colon == std::string::npos) {
    on.kind = OnWhat::Kind::slurm;
    return on;
  }
  if (kind == "hosts" && !more.empty()) {
    on.kind = OnWhat::Kind::hosts;
    on.file = more;
    return on;
  }
  const auto processes = number_of(more);
  if (kind != "local" || (colon != std::string::npos && (!processes || *processes < 1 || *processes > 1024)))
    throw Error("--on {}: must be local, local:N, hosts:FILE or slurm", text);
  on.processes = static_cast<int>(processes.value_or(0));
  return on;
}

}  // namespace troupe
