#include "tests/support/stuck.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "actors/node.h"
#include "kernels/base/check.h"
#include "kernels/sim/device.h"
#include "launcher/board_file.h"
#include "launcher/inspect/node_server.h"
#include "launcher/loop.h"

namespace troupe::test {

namespace {

constexpr std::int64_t kPublishedUs = 200'000;  // boards are written every 50 ms

struct StuckActor {
  explicit StuckActor(const Context&) {}
  template <typename Any>
  void on(const Any&, const Address&) {
    for (;;) ::pause();
  }
  void waits(Waits&) const {}
  static std::uint32_t attempt() { return 0; }
  static std::int64_t version() { return 0; }
};

struct WaitingActor {
  explicit WaitingActor(const Context&) {}
  template <typename Any>
  void on(const Any&, const Address&) {}
  void waits(Waits& out) const { out.push_back({Awaited::step_plan, {Role::loader, 0}, step_key(7, 0)}); }
  static std::uint32_t attempt() { return 0; }
  static std::int64_t version() { return 7; }
};

[[noreturn]] void live_with_a_stuck_actor(const std::string& run) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const Address conductor{Role::conductor, 0}, loader{Role::loader, 0};
  BoardFile file(run, 0, 2, 1, ::getpid());
  SimDevice device({});
  PayloadPool pool;
  NodeServerOptions options;
  options.board = file.bytes();
  NodeServer server(std::move(options));
  file.board().listens(server.port());
  NodeWatch watch(&file.board(), nullptr, {conductor, loader});
  Node node(0, 1, {.device = &device, .pool = &pool, .watch = &watch, .now_us = monotonic_us});
  node.add<WaitingActor>(conductor);
  node.add<StuckActor>(loader);
  const std::int64_t begin_us = monotonic_us();
  while (monotonic_us() - begin_us < kPublishedUs) {
    node.turn(monotonic_us());
    ::usleep(1000);
  }
  node.post(conductor, loader, StartStep{7, 0});
  for (;;) node.turn(monotonic_us());
}

}  // namespace

StuckProcess::StuckProcess(const std::string& run) : pid_(::fork()) {
  CHECK(pid_ >= 0, "no process");
  if (pid_ == 0) live_with_a_stuck_actor(run);
}

StuckProcess::~StuckProcess() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

bool StuckProcess::is_stuck(const std::string& run, int milliseconds) {
  for (int i = 0; i < 1000; ++i) {
    for (const BoardPage& page : read_boards(run, 1))
      for (const BoardPage::Actor& actor : page.actors)
        if (!actor.handling.empty() && monotonic_us() - actor.handling_since_us > std::int64_t{1000} * milliseconds)
          return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return false;
}

}  // namespace troupe::test
