// WebServer: the inspector over HTTP: the page's files, the API below /api, Prometheus at /metrics. One thread serves all
// connections and waits for nothing but them: what must be looked at is asked of a desk (web_desk.h), and the connection
// sleeps until it has answered. The law: whatever comes in, memory and connections have a bound, and the run is untouched.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "launcher/inspect/source.h"

namespace troupe {

struct WebOptions {
  std::string address = "127.0.0.1";  // as listen_address makes it
  std::uint16_t port = 0;             // 0: any that is free
  std::string machine{};              // its own name
  std::string token{};                // of the run; empty: none, which off loopback and for control is not allowed
  bool allow_control = false;
};

class WebServer {
 public:
  // source is used by a thread of the server's alone, and outlives it. Throws Error: it can't listen there.
  WebServer(InspectSource& source, const WebOptions& options);
  ~WebServer();
  WebServer(const WebServer&) = delete;
  WebServer& operator=(const WebServer&) = delete;
  std::uint16_t port() const;

 private:
  struct Running;
  std::unique_ptr<Running> running_;
};
constexpr unsigned kConnectionsMax = 512, kConnectionTimeoutSeconds = 10;
constexpr std::size_t kConnectionBytesMax = 32 << 10;  // of a request's line and headers, and of what waits to be sent
constexpr std::size_t kAnswerBytesMax = 256 << 20;     // of all answers that are being sent

}  // namespace troupe
