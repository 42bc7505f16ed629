#include "launcher/inspect/web_guard.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "kernels/base/error.h"
#include "launcher/inspect/run_token.h"

namespace troupe {

namespace {

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

bool is_any(const std::string& address) { return address == "0.0.0.0" || address == "[::]"; }

// Empty: `text` is not one. With brackets if it has colons.
std::string number_address(const std::string& text) {
  std::array<char, INET6_ADDRSTRLEN> name{};
  in_addr four{};
  if (inet_pton(AF_INET, text.c_str(), &four) == 1)
    return inet_ntop(AF_INET, &four, name.data(), static_cast<socklen_t>(name.size()));
  const bool bracketed = text.size() > 2 && text.front() == '[' && text.back() == ']';
  in6_addr six{};
  if (inet_pton(AF_INET6, (bracketed ? text.substr(1, text.size() - 2) : text).c_str(), &six) != 1) return "";
  return fmt::format("[{}]", inet_ntop(AF_INET6, &six, name.data(), static_cast<socklen_t>(name.size())));
}

std::vector<std::string> own_names(const GuardRules& rules) {
  std::vector<std::string> names{"localhost", "127.0.0.1", "[::1]"};
  if (!is_any(rules.address) && std::find(names.begin(), names.end(), rules.address) == names.end())
    names.push_back(rules.address);
  if (!is_loopback(rules.address) && !rules.machine.empty()) names.push_back(lower(rules.machine));
  return names;
}

// Who listens on every address is called by any of them, but a name in between would be somebody else's.
bool is_own_host(const GuardRules& rules, const std::string& host) {
  const std::string port = fmt::format(":{}", rules.port);
  std::string name = lower(host);
  if (name.ends_with(port))
    name.resize(name.size() - port.size());
  else if (rules.port != 80)
    return false;
  const std::vector<std::string> names = own_names(rules);
  return std::find(names.begin(), names.end(), name) != names.end() ||
         (is_any(rules.address) && number_address(name) == name);
}

std::optional<Refused> of_elsewhere(const GuardRules& rules, const Asked& asked) {
  if (asked.repeated)
    return Refused{400, "of the headers Host, Origin, Authorization and Content-Type each may be there once"};
  if (!asked.host || !is_own_host(rules, *asked.host))
    return Refused{403, fmt::format("this server is called {0}:{1}, and with this port only; a tunnel needs {1} at "
                                    "both ends",
                                    fmt::join(own_names(rules), fmt::format(":{}, ", rules.port)), rules.port)};
  if (asked.origin && lower(*asked.origin) != "http://" + lower(*asked.host))
    return Refused{403, "a page of another origin asks: only the inspector's own page may"};
  return std::nullopt;
}

std::optional<Refused> of_method(const Asked& asked) {
  const bool reads = asked.method == "GET" || asked.method == "HEAD";
  if (asked.path == kControlPath) {
    if (asked.method == "POST") return std::nullopt;
    return Refused{405, fmt::format("{} takes POST alone", kControlPath)};
  }
  if (reads) return std::nullopt;
  return Refused{405, fmt::format("what is there to read takes GET and HEAD; POST is for {} alone", kControlPath)};
}

std::optional<Refused> without_token(const GuardRules& rules, const Asked& asked) {
  const std::string kScheme = "bearer ";
  if (!asked.authorization)
    return Refused{401, "the run's token is needed: open the address that troupe inspect printed"};
  const bool bears = lower(asked.authorization->substr(0, kScheme.size())) == kScheme;
  if (!bears || rules.token.empty() || !same_secret(asked.authorization->substr(kScheme.size()), rules.token))
    return Refused{401, "the token is not the run's: it is in the run's folder, in the file token"};
  return std::nullopt;
}

bool is_page_file(const std::string& path) {
  return path != "/metrics" && path != "/api" && !path.starts_with("/api/");
}

}  // namespace

std::optional<Refused> refused(const GuardRules& rules, const Asked& asked) {
  if (auto no = of_elsewhere(rules, asked)) return no;
  if (auto no = of_method(asked)) return no;
  const bool controls = asked.path == kControlPath;
  if (controls && !rules.allow_control)
    return Refused{403, "this server only shows: troupe inspect --web --allow-control is for control"};
  const bool wrong = asked.authorization && !rules.token.empty();  // whoever shows a token shows the right one
  if (controls || (!is_page_file(asked.path) && (wrong || needs_token(rules))))
    if (auto no = without_token(rules, asked)) return no;
  if (asked.body_bytes > kBodyBytesMax)
    return Refused{413, fmt::format("a request's body has at most {} bytes", kBodyBytesMax)};
  if (!controls) return std::nullopt;
  const std::string type = lower(asked.content_type.value_or(""));
  if (type == "application/json" || type.starts_with("application/json;")) return std::nullopt;
  return Refused{415, "control is asked for in JSON: Content-Type must be application/json"};
}

std::string listen_address(const std::string& text) {
  if (text == "localhost") return "127.0.0.1";
  const std::string address = number_address(text);
  if (address.empty())
    throw Error("--listen {}: must be an address in numbers: 127.0.0.1, 0.0.0.0 for all, or one of this machine's",
                text);
  return address;
}

bool is_loopback(const std::string& address) { return address == "[::1]" || address.starts_with("127."); }

bool needs_token(const GuardRules& rules) { return !is_loopback(rules.address); }

}  // namespace troupe
