// For tests of the inspector's server: a source that makes things up, and a client that writes what it likes.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launcher/inspect/source.h"

namespace troupe::test {

// A conductor, a stage and shards that handled ever more; what is done with it is counted.
class MadeUpSource final : public InspectSource {
 public:
  explicit MadeUpSource(std::string metrics_path, std::uint32_t shards = 4);
  View look() override;
  std::vector<JournalPage> journals(std::uint64_t most) override;
  MetricsTail& metrics() override { return metrics_; }
  std::string token() override { return {}; }
  std::string control(const Control& control) override;

  std::vector<JournalPage> pages;
  std::function<void()> before_look = [] {};
  std::atomic<int> looks{0}, controls{0};
  std::string refusal;  // of controls
  std::vector<Control> controlled;

 private:
  std::uint32_t shards_;
  MetricsTail metrics_;
};

struct Reply {
  int status = 0;                              // 0: the connection ended without an answer
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  nlohmann::json json() const { return nlohmann::json::parse(body); }
  std::string error() const { return json().at("error"); }
};

// A connection to 127.0.0.1.
class Wire {
 public:
  explicit Wire(std::uint16_t port);
  ~Wire();
  Wire(Wire&& other) noexcept;
  Wire& operator=(Wire&&) = delete;
  void write(const std::string& bytes) const;
  void finish() const;  // nothing more is written
  // What comes, until it is enough, the other end closes, or the time is over.
  std::string read(const std::function<bool(const std::string&)>& enough, int limit_ms = 5000) const;

 private:
  int fd_;
};

using Headers = std::map<std::string, std::string>;
// Host is the server's unless `headers` has another.
std::string request_text(std::uint16_t port, const std::string& method, const std::string& path,
                         const Headers& headers = {}, const std::string& body = "");
Reply ask(std::uint16_t port, const std::string& method, const std::string& path, const Headers& headers = {},
          const std::string& body = "");
Reply get(std::uint16_t port, const std::string& path, const Headers& headers = {});
Reply parsed_reply(const std::string& bytes);

std::int64_t milliseconds(const std::function<void()>& of);

}  // namespace troupe::test
