#include "tests/support/web.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/error.h"
#include "launcher/config.h"

namespace troupe::test {

namespace {

using Clock = std::chrono::steady_clock;
std::int64_t since_ms(Clock::time_point begin) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin).count();
}

constexpr std::int64_t kNow = 100'000'000;

BoardPage::Actor actor_at(const Address& address, std::uint64_t handled) {
  BoardPage::Actor actor;
  actor.address = address;
  actor.version = 4;
  actor.handled = handled;
  actor.arrived = handled + address.index;  // so queues differ
  actor.oldest_us = kNow;
  return actor;
}

}  // namespace

MadeUpSource::MadeUpSource(std::string metrics_path, std::uint32_t shards)
    : shards_(shards), metrics_(std::move(metrics_path)) {}

View MadeUpSource::look() {
  before_look();
  const int number = ++looks;
  Observed now;
  now.now_us = kNow + number * 1'000'000;
  BoardPage page;
  page.pid = 77;
  page.turn_us = page.node.tick_us = now.now_us;
  page.node.incarnation = 1;
  page.node.bill_us[0] = 1'500'000;
  page.actors = {actor_at({Role::conductor, 0}, 100), actor_at({Role::stage, 0}, 200)};
  for (std::uint32_t i = 0; i < shards_; ++i) page.actors.push_back(actor_at({Role::expert_shard, i}, 300));
  page.actors[1].waits.push_back({Awaited::expert_result, {Role::expert_shard, 0}, {}, now.now_us - 30});
  now.pages = {page};
  static const Config kConfig =
      load_config(TROUPE_SOURCE_DIR "/configs/tiny.toml", {"train.steps=9", "device.threads=1"});
  const ViewOptions options{.run = "runs/\"x\"\\y", .source = RunSource::live, .can_control = true, .resume = ""};
  return make_view(kConfig, Plan{}, now, nullptr, metrics_.look(), options);
}

std::vector<JournalPage> MadeUpSource::journals(std::uint64_t most) {
  std::vector<JournalPage> last = pages;
  for (JournalPage& page : last)
    if (page.records.size() > most) {
      const auto over = page.records.size() - most;
      page.first += over;
      page.records.erase(page.records.begin(), page.records.begin() + static_cast<std::ptrdiff_t>(over));
    }
  return last;
}

std::string MadeUpSource::control(const Control& control) {
  ++controls;
  if (!refusal.empty()) throw Error("{}", refusal);
  controlled.push_back(control);
  return "done";
}

Wire::Wire(std::uint16_t port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0, "nobody listens at {}", port);
}

Wire::~Wire() {
  if (fd_ >= 0) close(fd_);
}

Wire::Wire(Wire&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

void Wire::write(const std::string& bytes) const {
  for (std::size_t sent = 0; sent < bytes.size();) {
    const ssize_t now = send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (now <= 0) return;  // the other end may have had enough
    sent += static_cast<std::size_t>(now);
  }
}

void Wire::finish() const { shutdown(fd_, SHUT_WR); }

std::string Wire::read(const std::function<bool(const std::string&)>& enough, int limit_ms) const {
  std::string all;
  const auto begin = Clock::now();
  while (!enough(all)) {
    const auto left = limit_ms - since_ms(begin);
    pollfd ready{fd_, POLLIN, 0};
    if (left <= 0 || poll(&ready, 1, static_cast<int>(left)) <= 0) break;
    std::array<char, 65536> bytes{};
    const ssize_t got = recv(fd_, bytes.data(), bytes.size(), 0);
    if (got <= 0) break;
    all.append(bytes.data(), static_cast<std::size_t>(got));
  }
  return all;
}

std::string request_text(std::uint16_t port, const std::string& method, const std::string& path, const Headers& headers,
                         const std::string& body) {
  Headers all = headers;
  all.try_emplace("Host", fmt::format("127.0.0.1:{}", port));
  if (!body.empty()) all.try_emplace("Content-Length", std::to_string(body.size()));
  std::string text = fmt::format("{} {} HTTP/1.1\r\n", method, path);
  for (const auto& [name, value] : all) text += fmt::format("{}: {}\r\n", name, value);
  return text + "\r\n" + body;
}

Reply parsed_reply(const std::string& bytes) {
  Reply reply;
  const std::size_t end = bytes.find("\r\n\r\n");
  if (!bytes.starts_with("HTTP/1.") || end == std::string::npos) return reply;
  reply.status = std::stoi(bytes.substr(9, 3));
  reply.body = bytes.substr(end + 4);
  for (std::size_t at = bytes.find("\r\n") + 2; at < end;) {
    const std::size_t line_end = bytes.find("\r\n", at), colon = bytes.find(": ", at);
    std::string name = bytes.substr(at, colon - at);
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    reply.headers[name] = bytes.substr(colon + 2, line_end - colon - 2);
    at = line_end + 2;
  }
  return reply;
}

Reply ask(std::uint16_t port, const std::string& method, const std::string& path, const Headers& headers,
          const std::string& body) {
  const Wire wire(port);
  wire.write(request_text(port, method, path, headers, body));
  return parsed_reply(wire.read([&](const std::string& bytes) {
    const Reply reply = parsed_reply(bytes);
    if (reply.status == 0 || !reply.headers.contains("content-length")) return false;
    return method == "HEAD" || reply.body.size() >= std::stoul(reply.headers.at("content-length"));
  }));
}

Reply get(std::uint16_t port, const std::string& path, const Headers& headers) {
  return ask(port, "GET", path, headers);
}

std::int64_t milliseconds(const std::function<void()>& of) {
  const auto begin = Clock::now();
  of();
  return since_ms(begin);
}

}  // namespace troupe::test
