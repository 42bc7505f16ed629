// Whoever asks a node from outside: it answers whatever its loop does, does nothing without the run's token, and is
// unharmed by all that comes.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>

#include "kernels/base/error.h"
#include "launcher/board_file.h"
#include "launcher/inspect/asked_nodes.h"
#include "launcher/inspect/node_client.h"
#include "launcher/inspect/node_server.h"
#include "launcher/inspect/run_token.h"
#include "launcher/inspect/run_watcher.h"
#include "launcher/journal_file.h"
#include "launcher/loop.h"
#include "messages/codec.h"
#include "tests/support/run.h"
#include "tests/support/stuck.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;
namespace fs = std::filesystem;

namespace {

const std::string kToken = "0123456789abcdef";
constexpr Address kLoader{Role::loader, 0}, kConductor{Role::conductor, 0};

// A node's files with a server on them.
struct Served {
  explicit Served(const std::string& token = kToken)
      : board(folder / "", 0, 1, 1, ::getpid()),
        journal(folder / "", 0, {.journal_mib = 1, .journals_kept = 1, .listen = {}}) {
    BoardNode page;
    page.tick_us = monotonic_us();
    page.incarnation = 5;
    board.board().turn(page.tick_us);
    board.board().publish(page);
    board.board().publish(0, {kLoader, 0, 7, 100}, {}, {}, page.tick_us);
    for (std::int64_t step = 0; step < 10; ++step)
      journal.journal().handled({kLoader, kConductor, StepPlan{.step = step}}, step, step + 1);
    NodeServerOptions options;
    options.token = token;
    options.config_toml = "name = \"x\"\n";
    options.board = board.bytes();
    options.journal = journal.bytes();
    options.idle_ms = 2000;
    server.emplace(std::move(options));
    address = fmt::format("127.0.0.1:{}", server->port());
  }
  Folder folder;
  BoardFile board;
  JournalFile journal;
  std::optional<NodeServer> server;
  std::string address;
};

std::string refusal(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool answers(const Served& served) {
  NodeClient client(served.address, "");
  const auto snapshot = client.ask<Snapshot>(ReadSnapshot{});
  const auto page = read_board(snapshot.board.data(), snapshot.board.size());
  return page && page->node.incarnation == 5;
}

// A connection as anybody may open one.
struct Raw {
  explicit Raw(std::uint16_t port) : fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0);
  }
  Raw(Raw&& other) noexcept : fd(std::exchange(other.fd, -1)) {}
  ~Raw() {
    if (fd >= 0) ::close(fd);
  }
  // False: the other end is closed.
  bool say(const std::vector<std::byte>& bytes) const {
    return ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(bytes.size());
  }
  int fd;
};

std::int64_t step_of(const std::string& run) {
  const auto steps = metrics_of(run, "step");
  return steps.empty() ? -1 : steps.back().at("step").get<std::int64_t>();
}

std::string digest_of(const std::string& run) {
  const Ended ended = troupe::test::troupe({"digest", run});
  REQUIRE(ended.code == 0);
  return ended.out.substr(0, 64);
}

}  // namespace

TEST_CASE("a node tells its board, its journal and its configuration to whoever asks on this machine",
          "[node_server]") {
  const Served served;
  CHECK(answers(served));
  NodeClient client(served.address, "");
  const auto part = client.ask<JournalPart>(ReadJournal{4, 100});
  CHECK(part.written == 10);
  const auto page = read_journal(part.journal.data(), part.journal.size());
  REQUIRE((page && page->records.size() == 6));
  CHECK(page->records.front().step == 4);
  CHECK(client.ask<JournalPart>(ReadJournal{0, 3}).written == 10);
  CHECK(client.ask<ConfigText>(ReadConfig{}).toml == "name = \"x\"\n");
}

TEST_CASE("who subscribes is told again and again, and not more often than is good", "[node_server]") {
  const Served served;
  NodeClient client(served.address, "");
  const std::int64_t begin_us = monotonic_us();
  CHECK(client.ask<Snapshot>(Subscribe{1}).now_us >= begin_us);
  for (int i = 0; i < 3; ++i) CHECK(std::holds_alternative<Snapshot>(client.next()));
  CHECK(monotonic_us() - begin_us >= 250'000);
}

TEST_CASE("orders need the run's token, and are handed to the loop", "[node_server]") {
  Served served;
  for (const std::string& token : {std::string(), std::string("0123456789abcdeX"), kToken + "0", std::string("0")}) {
    NodeClient client(served.address, token);
    CHECK(refusal([&] { client.ask<Said>(Pause{true}); }).find("token is needed") != std::string::npos);
    CHECK(refusal([&] { client.kill_node(); }).find("token is needed") != std::string::npos);
    CHECK(refusal([&] { client.ask<Said>(Inject{}); }).find("token is needed") != std::string::npos);
  }
  CHECK(served.server->take_orders().empty());
  NodeClient client(served.address, kToken);
  CHECK(client.ask<Said>(Pause{true}).sentence.find("pauses") != std::string::npos);
  const Frame frame = encode({kConductor, kLoader, StartStep{3, 0}}, {.sequence = 1}, false);
  CHECK(client.ask<Said>(Inject{{frame.header.begin(), frame.header.end()}}).sentence.find("StartStep") !=
        std::string::npos);
  CHECK(refusal([&] { client.ask<Said>(Inject{{std::byte{1}}}); }).find("no message can be made") != std::string::npos);
  auto orders = served.server->take_orders();
  REQUIRE(orders.size() == 2);
  CHECK(std::get<Pause>(orders[0]).on);
  CHECK(std::get<StartStep>(std::get<Envelope>(orders[1]).message).step == 3);
  Served nobody("");
  CHECK(refusal([&] { NodeClient(nobody.address, "").ask<Said>(Pause{true}); }).find("token") != std::string::npos);
}

TEST_CASE("elsewhere than on loopback reading needs the token too", "[node_server]") {
  const Folder folder;
  BoardFile board(folder / "", 0, 1, 1, ::getpid());
  NodeServerOptions options;
  options.address = "0.0.0.0";
  options.token = kToken;
  options.board = board.bytes();
  NodeServer server(std::move(options));
  const std::string address = fmt::format("127.0.0.1:{}", server.port());
  CHECK(refusal([&] { NodeClient(address, "").ask<Snapshot>(ReadSnapshot{}); }).find("token") != std::string::npos);
  CHECK(!NodeClient(address, kToken).ask<Snapshot>(ReadSnapshot{}).board.empty());
}

TEST_CASE("ten thousand requests that nobody can read harm nobody", "[node_server]") {
  Served served;
  std::mt19937_64 draw(7);
  const auto good = encode(InspectRequest{kToken, ReadSnapshot{}});
  for (int i = 0; i < 10'000; ++i) {
    const Raw raw(served.server->port());
    std::vector<std::byte> bytes = good;
    if (i % 3 == 0) bytes.resize(draw() % 200);
    for (std::size_t hits = draw() % 8; !bytes.empty() && hits > 0; --hits)
      bytes[draw() % bytes.size()] = std::byte(draw());
    raw.say(bytes);
    if (i % 1000 == 0) CHECK(answers(served));
  }
  CHECK(answers(served));
  for (const NodeServer::Order& order : served.server->take_orders())
    CHECK(std::holds_alternative<Pause>(order));  // a byte may have made one of a request with the right token
}

TEST_CASE("two hundred connections that ask nothing, and half a request each, keep nobody from an answer",
          "[node_server]") {
  const Served served;
  std::vector<Raw> idle;
  for (int i = 0; i < 200; ++i) {
    idle.emplace_back(served.server->port());
    if (i % 2 == 0) idle.back().say({std::byte{8}, std::byte{0}, std::byte{0}});
  }
  const std::int64_t begin_us = monotonic_us();
  CHECK(answers(served));
  CHECK(monotonic_us() - begin_us < 1'000'000);
}

TEST_CASE("a node whose actor never returns is asked, answers within a second, and names it", "[node_server]") {
  const Folder folder;
  const std::string run = folder / "run";
  fs::create_directories(run);
  const StuckProcess process(run);
  REQUIRE(StuckProcess::is_stuck(run, 0));
  const std::string address = fmt::format("127.0.0.1:{}", read_boards(run, 1).at(0).port);
  const std::int64_t begin_us = monotonic_us();
  const auto snapshot = NodeClient(address, "").ask<Snapshot>(ReadSnapshot{});
  CHECK(monotonic_us() - begin_us < 1'000'000);
  const auto page = read_board(snapshot.board.data(), snapshot.board.size());
  REQUIRE(page);
  const auto loader = std::find_if(page->actors.begin(), page->actors.end(),
                                   [](const BoardPage::Actor& actor) { return actor.address == kLoader; });
  REQUIRE(loader != page->actors.end());
  CHECK(loader->handling == "StartStep");
  CHECK(loader->handling_from == kConductor);
  CHECK(loader->arrived - loader->handled == 1);
}

TEST_CASE("a run's token is its owner's alone", "[node_server]") {
  const Folder folder;
  const std::string token = run_token(folder / "");
  CHECK(token.size() == 64);
  CHECK(run_token(folder / "") == token);
  CHECK((fs::status(folder / "token").permissions() & fs::perms(0777)) == fs::perms(0600));
  CHECK(same_secret(token, token));
  CHECK(!same_secret(token.substr(1), token));
  fs::permissions(folder / "token", fs::perms(0644));
  CHECK(refusal([&] { run_token(folder / ""); }).find("chmod 600") != std::string::npos);
}

TEST_CASE(
    "a run that is paused at a commit, watched and resumed, and loses a node to an order, has the undisturbed bits",
    "[node_server]") {
  const Folder folder;
  const Arguments sets{"train.steps=200", "layout.nodes=2", "layout.expert_shards=2", "checkpoint.every_steps=40"};
  const std::string run = folder / "watched", plain = folder / "plain";
  Process process(troupe_command(tiny_run(run, sets)), 60'000);
  REQUIRE(process.follow([&] { return step_of(run) >= 5; }));
  RunWatcher reader(run);
  reader.look();
  CHECK(refusal([&] { reader.control({.what = Control::Do::pause}); }).find("--allow-control") != std::string::npos);
  RunWatcher watcher(run, true);
  watcher.look();
  CHECK(watcher.control({.what = Control::Do::pause}).find("pauses") != std::string::npos);
  REQUIRE(process.follow([&] { return watcher.look().paused; }));
  const std::int64_t paused_at = step_of(run);
  ::usleep(300'000);
  CHECK(step_of(run) == paused_at);
  CHECK(watcher.look().healthy);
  CHECK(watcher.look().step == paused_at + 1);
  CHECK(watcher.control({.what = Control::Do::step}).find("after 1 more") != std::string::npos);
  REQUIRE(process.follow([&] { return step_of(run) == paused_at + 1 && watcher.look().paused; }));
  ::usleep(200'000);
  CHECK(step_of(run) == paused_at + 1);
  const Ended told = troupe::test::troupe({"inspect", run, "--do", "step"});
  CHECK(told.out == "the run pauses after 1 more step\n");
  REQUIRE(process.follow([&] { return step_of(run) == paused_at + 2 && watcher.look().paused; }));
  watcher.control({.what = Control::Do::resume});
  REQUIRE(process.follow([&] { return step_of(run) >= paused_at + 5; }));
  watcher.look();
  CHECK(watcher.control({.what = Control::Do::kill, .node = 1}).find("is killed") != std::string::npos);
  const Ended ended = process.wait();
  INFO(ended.out << ended.err);
  REQUIRE(ended.code == 0);
  CHECK(ended.err.find("node 1 is lost") != std::string::npos);
  CHECK(metrics_of(run, "bill").back().at("thread_seconds").at("paused").get<double>() > 0.2);
  CHECK(troupe::test::troupe(tiny_run(plain, sets)).code == 0);
  CHECK(digest_of(run) == digest_of(plain));
}

TEST_CASE("what is injected reaches its actor, and marks the run", "[node_server]") {
  const Folder folder;
  const std::string run = folder / "run";
  Process process(troupe_command(tiny_run(run, {"train.steps=100000"})), 60'000);
  REQUIRE(process.follow([&] { return step_of(run) >= 2; }));
  RunWatcher watcher(run);
  CHECK(watcher.look().tainted.empty());
  const auto injected = [&](const std::string& message) {
    return troupe::test::troupe({"inspect", run, "--do", "inject=" + message});
  };
  CHECK(injected(R"({"toRole": "conductor", "stopp": {}})").err.find("Envelope of messages/schema.capnp") !=
        std::string::npos);
  CHECK(injected(R"({"toRole": "stage", "toIndex": 7, "stop": {}})").err.find("stage 7 is no actor of this run") !=
        std::string::npos);
  CHECK(watcher.look().tainted.empty());
  const Ended told = injected(R"({"toRole": "conductor", "stop": {"reason": "enough"}})");
  CHECK(told.out == "Stop is on its way to conductor 0; the run is marked as tainted\n");
  CHECK(process.wait().code == 0);
  CHECK(metrics_of(run, "tainted").size() == 1);
  CHECK(metrics_of(run, "finished").back().at("reason") == "enough");
  CHECK(watcher.look().tainted.find("Stop was injected into conductor") != std::string::npos);
}

TEST_CASE("however often one looks, a run that works is healthy", "[node_server]") {
  const Folder folder;
  const std::string run = folder / "run";
  Process process(troupe_command(tiny_run(
                      run, {"train.steps=100000", "layout.nodes=2", "layout.expert_shards=2", "link.delay_ms=2"})),
                  60'000);
  REQUIRE(process.follow([&] { return step_of(run) >= 2; }));
  RunWatcher watcher(run);
  for (int look = 0; look < 300; ++look) {
    const View view = watcher.look();
    INFO("look " << look << ": " << view.why.text());
    REQUIRE(view.healthy);
    ::usleep(2'000);
  }
}

TEST_CASE("a run is looked at where its data isn't", "[node_server]") {
  const Folder folder;
  const std::string run = folder / "run", data = folder / "text";
  write_file(data, std::string(100'000, 'x'));
  Process process(troupe_command(tiny_run(
                      run, {"train.steps=100000", "model.vocab_size=256", "data.kind=text", "data.files=" + data})),
                  60'000);
  REQUIRE(process.follow([&] { return step_of(run) >= 2; }));
  fs::remove(data);
  AskedNodes nodes(fmt::format("127.0.0.1:{}", read_boards(run, 1).at(0).port), "", false);
  CHECK(nodes.look().nodes.size() == 1);
  CHECK(RunWatcher(run).look().nodes.size() == 1);
}

TEST_CASE("a run is looked at by asking its nodes, from elsewhere than its folder", "[node_server]") {
  const Folder folder;
  const std::string run = folder / "run";
  Process process(troupe_command(tiny_run(run, {"train.steps=100000", "layout.nodes=2"})), 60'000);
  REQUIRE(process.follow([&] { return step_of(run) >= 2; }));
  std::string addresses;
  for (const BoardPage& page : read_boards(run, 2))
    addresses += fmt::format("{}127.0.0.1:{}", addresses.empty() ? "" : ",", page.port);
  AskedNodes nodes(addresses, run_token(run), true);
  nodes.look();
  ::usleep(300'000);
  const View view = nodes.look();
  REQUIRE(view.nodes.size() == 2);
  for (const NodeView& node : view.nodes) {
    CHECK(node.life == "running");
    CHECK(std::abs(node.clock_offset_us) < 100'000);
  }
  CHECK(!view.edges.empty());
  CHECK(view.step > 0);
  CHECK(nodes.control({.what = Control::Do::pause}).find("pauses") != std::string::npos);
  REQUIRE(process.follow([&] { return nodes.look().paused; }));
  CHECK(refusal([&] { AskedNodes("127.0.0.1:1", "", false); }).find("no node answers") != std::string::npos);
  CHECK(refusal([&] { AskedNodes("nonsense", "", false); }).find("no address") != std::string::npos);
}
