// Who may ask the inspector's server for what: pure rules on what a request says of itself. The page's files are
// anybody's; a run is read by whoever is on this machine, off loopback by whoever has the run's token; it is controlled
// by who has the token where the server was started for it. The law: a page of somebody else's, also one that was given
// our address by a name server of its own, gets nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace troupe {

struct GuardRules {
  std::string address = "127.0.0.1";  // that it listens on, as listen_address makes it
  std::uint16_t port = 0;
  std::string machine{};  // its own name, by which it may be called off loopback
  std::string token{};    // empty: there is none
  bool allow_control = false;
};

// What a request says of itself; empty: nothing.
struct Asked {
  std::string method{}, path{};
  std::optional<std::string> host{}, origin{}, authorization{}, content_type{};
  bool repeated = false;  // one of these was said more than once
  std::uint64_t body_bytes = 0;
};
constexpr std::uint64_t kBodyBytesMax = 64 << 10;
constexpr const char* kControlPath = "/api/control";

struct Refused {
  int status = 0;
  std::string sentence;
};
// Empty: it may.
std::optional<Refused> refused(const GuardRules& rules, const Asked& asked);

// As it is written in addresses of pages: "127.0.0.1", "[::1]". Throws Error: it is no address of numbers.
std::string listen_address(const std::string& text);
bool is_loopback(const std::string& address);
bool needs_token(const GuardRules& rules);  // for reading

}  // namespace troupe
