#include "launcher/pairs/probe.h"

#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "actors/config.h"
#include "kernels/base/error.h"
#include "kernels/base/hex.h"
#include "launcher/doctor_report.h"
#include "launcher/loop.h"
#include "launcher/machine.h"
#include "messages/ucx.h"

namespace troupe {

using nlohmann::json;

namespace {

constexpr int kOrphaned = 3;  // the launcher is gone
constexpr std::int64_t kOrphanUs = 2 * 1000 * kProbeSilenceMs;

// That is measured now is no longer wanted.
struct Parted {};

// "32768-60999"; empty: unknown.
std::string free_ports() {
  std::ifstream file("/proc/sys/net/ipv4/ip_local_port_range");
  int first = 0, last = 0;
  return file >> first >> last ? fmt::format("{}-{}", first, last) : "";
}

class Probe {
 public:
  Probe(ControlSocket& socket, const json& begin)
      : socket_(socket),
        transport_(make_ucx_transport({begin.at("transport"), begin.at("interface")}, pool_)),
        between_hosts_(begin.at("transport") != "auto") {}
  int run();

 private:
  void tell_facts();
  void look();
  void hear(const json& message);
  void meet(const json& message);

  ControlSocket& socket_;
  PayloadPool pool_;
  std::unique_ptr<Transport> transport_;
  const bool between_hosts_;
  std::optional<json> due_;  // whom to meet next
  std::uint32_t match_ = 0;
  bool busy_ = false, parted_ = false, late_ = false, over_ = false;
  std::int64_t heard_us_ = monotonic_us(), beat_us_ = 0;
};

void Probe::tell_facts() {
  const MachineFacts machine = look_at_machine();
  late_ = any_late(machine);
  Config config;
  resolve_machine(config);
  socket_.send(json{{"kind", "facts"},
                    {"doctor", doctor_json(machine, findings_of(machine, between_hosts_))},
                    {"address", to_hex(transport_->local_address())},
                    {"machine", kind_of_machine(config)},
                    {"ports", free_ports()}}
                   .dump());
  heard_us_ = monotonic_us();
}

void Probe::hear(const json& message) {
  const std::string kind = message.at("kind");
  if (kind == "end") over_ = true;
  if (kind == "meet") due_ = message;
  if (kind == "part" && due_ && due_->at("match") == message.at("match")) due_.reset();
  if (kind == "part" && busy_ && match_ == message.at("match")) parted_ = true;
  const auto since = std::chrono::system_clock::now().time_since_epoch();
  if (kind == "clock")
    socket_.send(
        json{{"kind", "clock"}, {"us", std::chrono::duration_cast<std::chrono::microseconds>(since).count()}}.dump());
}

// What the launcher says, and a sign of life.
void Probe::look() {
  const std::int64_t now_us = monotonic_us();
  if (now_us - beat_us_ > std::int64_t{1000} * kProbeBeatMs) {
    beat_us_ = now_us;
    socket_.send(json{{"kind", "alive"}}.dump());
  }
  if (socket_.wants_write()) socket_.flush();
  if (!socket_.read()) _exit(kOrphaned);
  while (auto line = socket_.next()) {
    heard_us_ = now_us;
    hear(json::parse(*line));
  }
  if (now_us - heard_us_ > kOrphanUs) _exit(kOrphaned);
  if (busy_ && (parted_ || over_)) throw Parted();
}

void Probe::meet(const json& message) {
  PairMeterOptions options;
  options.peer = message.at("peer");
  options.match = message.at("match");
  options.silence_us = std::int64_t{1000} * kProbeSilenceMs;
  options.spin_us = LayoutConfig().spin_us;
  transport_->connect(options.peer, from_hex(message.at("address").get<std::string>()));
  match_ = options.match;
  busy_ = true;
  parted_ = false;
  try {
    PairMeter meter(
        *transport_, pool_, options, [this] { look(); }, socket_.fd());
    const bool leads = message.at("leads");
    if (!leads) socket_.send(json{{"kind", "met"}, {"match", options.match}}.dump());
    if (leads)
      socket_.send(json{{"kind", "measured"}, {"match", options.match}, {"figures", to_json(meter.lead())}}.dump());
    else
      meter.follow();
  } catch (const Parted&) {
  } catch (const Error& error) {
    socket_.send(json{{"kind", "unmeasured"}, {"match", options.match}, {"problem", error.what()}}.dump());
    transport_->forget(options.peer);
  }
  busy_ = false;
}

int Probe::run() {
  tell_facts();
  while (!over_) {
    look();
    if (due_) meet(*std::exchange(due_, std::nullopt));
    if (over_ || due_) continue;
    transport_->poll([](const Frame&) {});  // late ones, of a measuring that is over
    pollfd ready{socket_.fd(), POLLIN, 0};
    ::poll(&ready, 1, 20);
  }
  transport_.reset();
  if (late_) std::_Exit(0);
  return 0;
}

}  // namespace

int probe(ControlSocket& socket, const json& begin) { return Probe(socket, begin).run(); }

json to_json(const PairFigures& f) {
  return {{"half_trip_us", f.half_trip_us},
          {"half_trip_us_99", f.half_trip_us_99},
          {"out", f.out},
          {"in", f.in},
          {"both", f.both},
          {"message_bytes", f.message_bytes}};
}

PairFigures pair_figures_from(const json& told) {
  return {told.at("half_trip_us"), told.at("half_trip_us_99"), told.at("out"), told.at("in"),
          told.at("both"),         told.at("message_bytes")};
}

}  // namespace troupe
