// A node process: builds its part of the world as the launcher says, runs it, and ends when its control socket does.
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "actors/build_info.h"
#include "kernels/base/error.h"
#include "kernels/base/hex.h"
#include "kernels/base/log.h"
#include "launcher/config.h"
#include "launcher/loop.h"
#include "launcher/machine.h"
#include "launcher/pairs/probe.h"
#include "launcher/processes.h"
#include "launcher/world.h"
#include "messages/control_socket.h"

namespace troupe {

using nlohmann::json;

namespace {

constexpr int kOrphaned = 3;  // the launcher is gone

json wait_for(ControlSocket& socket, const char* kind, const char* or_kind = "") {
  for (bool open = true;;) {
    if (auto line = socket.next()) {
      json message = json::parse(*line);
      if (message.at("kind") == "end") _exit(0);
      if (message.at("kind") == "refused")
        throw Error("the launcher refused this process: {}", message.value("sentence", ""));
      if (message.at("kind") == kind || message.at("kind") == or_kind) return message;
      continue;
    }
    if (!open) _exit(kOrphaned);
    open = socket.read();
    usleep(1000);
  }
}

struct NodeProcess {
  ControlSocket socket;
  Config config;
  std::uint32_t id = 0;
  std::optional<World> world;
  std::string token{};  // of a process elsewhere than its launcher; empty: the launcher tells it
  bool elsewhere() const { return !token.empty(); }
  std::int64_t last_beat_us = 0, heard_us = 0;
  bool done = false;

  void introduce(const json& start);
  void meet(const json& introduced);
  void beat();
  void follow();
};

void NodeProcess::introduce(const json& start) {
  id = start.at("node");
  config = config_from_text(start.at("config"), "the launcher's configuration", {}, id == 0);  // who reads data
  start_log(fmt::format("node-{}", id), "", LogLevel::info);
  WorldOptions options;
  options.node = id;
  options.incarnation = start.at("incarnation");
  options.together = start.at("together");
  options.mode = static_cast<RunMode>(start.at("mode").get<int>());
  options.run_folder = start.at("run_folder");
  std::filesystem::create_directories(options.run_folder);  // this machine may not have it yet
  options.token = elsewhere() ? token : start.at("token").get<std::string>();
  if (id == 0 && !config.has_rollouts()) options.corpus = open_corpus(config);
  options.tasks = open_tasks(config);
  world.emplace(config, options);
  socket.send(json{{"kind", "hello"},
                   {"address", to_hex(world->transport_address())},
                   {"build", build_version()},
                   {"machine", kind_of_machine(config)},
                   {"digest", numbers_digest(config)}}
                  .dump());
  world->node().set_uplink([this](const Envelope& envelope) {
    if (const auto* report = std::get_if<Report>(&envelope.message))
      socket.send(json{{"kind", "report"}, {"report", report->kind}, {"json", report->json}}.dump());
  });
  meet(wait_for(socket, "peers"));
  log_info("event=up node={}", id);
}

void NodeProcess::meet(const json& introduced) {
  for (const json& peer : introduced.at("peers"))
    if (peer.at("node") != id)
      world->connect(peer.at("node"), peer.at("incarnation"), from_hex(peer.at("address").get<std::string>()));
  socket.send(json{{"kind", "up"}, {"introduction", introduced.at("introduction")}}.dump());
}

// A sign of life, and whom this node hears nothing from: twice the time after which the launcher misses a process, so
// that what it hears of later is a broken way between two that live.
void NodeProcess::beat() {
  const std::int64_t now_us = monotonic_us();
  if (now_us - last_beat_us < std::int64_t{1000} * config.limits.heartbeat_ms) return;
  if (elsewhere() && now_us - heard_us > std::int64_t{1000} * config.limits.silence_ms) {
    log_error("event=orphaned reason=\"no word from the launcher for {} ms\"", config.limits.silence_ms);
    _exit(kOrphaned);
  }
  last_beat_us = now_us;
  const auto silent = world->node().silent_peers(std::int64_t{2000} * config.limits.silence_ms);
  json beat{{"kind", silent.empty() ? "alive" : "silent"}, {"bill", to_json(world->bill())}};
  if (!silent.empty()) beat["peers"] = silent;
  socket.send(beat.dump());
}

// What the launcher says while the node runs.
void NodeProcess::follow() {
  heard_us = monotonic_us();
  if (!socket.read()) _exit(kOrphaned);
  while (auto line = socket.next()) {
    const json message = json::parse(*line);
    const std::string kind = message.at("kind");
    if (kind == "peers") meet(message);
    if (kind == "forget") world->node().forget(message.at("node"));
    if (kind == "recover")
      world->recover({message.at("attempt"), message.at("version"), message.at("path"), message.at("weights_only"),
                      message.at("allowance_us")});
    if (kind == "stop") world->stop(message.at("reason"));
    if (kind == "end") done = true;
  }
}

}  // namespace

namespace {

int run_node(NodeProcess& process) {
  signal(SIGINT, SIG_IGN);  // Ctrl-C reaches the whole group; the launcher decides
  signal(SIGTERM, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  try {
    const json first = wait_for(process.socket, "start", "probe");
    if (first.at("kind") == "probe") return probe(process.socket, first);  // no run: the doctor looks at this host
    process.introduce(first);
    process.heard_us = monotonic_us();
    process.world->loop().watch(process.socket.fd(), [&] { process.follow(); });
    process.world->loop().run([&] {
      process.beat();
      if (process.socket.wants_write()) process.socket.flush();
      return process.done;
    });
  } catch (const std::exception& error) {
    process.socket.send(json{{"kind", "failed"}, {"sentence", error.what()}}.dump());
    process.socket.flush();
    log_error("event=failed reason=\"{}\"", error.what());
    return 1;
  }
  process.socket.send(json{{"kind", "ended"}, {"bill", to_json(process.world->bill())}}.dump());
  process.socket.flush();
  log_info("event=down node={}", process.id);
  process.world.reset();
  return 0;
}

// Its launcher holds the other end of its standard input. A thread of its own watches that: the loop may be stuck.
void end_with_stdin() {
  std::thread([] {
    std::array<char, 256> bytes{};
    while (::read(STDIN_FILENO, bytes.data(), bytes.size()) > 0) {
    }
    _exit(kOrphaned);
  }).detach();
}

}  // namespace

int node_main(int socket_fd) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // besides the socket: a launcher killed outright leaves no orphan
  NodeProcess process{ControlSocket(socket_fd), {}, 0, {}};
  return run_node(process);
}

int node_from_elsewhere(const JoinOptions& options) {
  JoinOptions known = options;
  known.token = token_from_stdin();
  end_with_stdin();
  NodeProcess process{join_run(known), {}, 0, {}, known.token};
  return run_node(process);
}

}  // namespace troupe
