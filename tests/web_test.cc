// The inspector's server as clients meet it: a real one at a port of its own, asked well and badly.
#include "launcher/inspect/web.h"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <future>
#include <memory>
#include <set>

#include "kernels/base/error.h"
#include "kernels/base/random.h"
#include "launcher/inspect/run_watcher.h"
#include "tests/support/run.h"
#include "tests/support/web.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;
using nlohmann::json;

namespace {

const std::string kToken(64, 'a');

// With these metrics from its first look on.
Folder& with_metrics(Folder& folder, const std::string& metrics) {
  write_file(folder / "metrics.jsonl", metrics);
  return folder;
}

struct Served {
  explicit Served(const WebOptions& options = {}, const std::string& metrics = "")
      : source(with_metrics(folder, metrics) / "metrics.jsonl"), server(source, options) {}
  Reply get(const std::string& path, const Headers& headers = {}) const {
    return test::get(server.port(), path, headers);
  }
  Reply control(const Headers& headers, const std::string& body = R"({"do":"pause"})") const {
    Headers all = headers;
    all.try_emplace("Content-Type", "application/json");
    return ask(server.port(), "POST", "/api/control", all, body);
  }
  std::string own(const std::string& name = "127.0.0.1") const { return fmt::format("{}:{}", name, server.port()); }
  Folder folder;
  MadeUpSource source;
  WebServer server;
};
WebOptions controlling() { return {.token = kToken, .allow_control = true}; }
Headers bearing(const std::string& token) { return {{"Authorization", "Bearer " + token}}; }

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++found;
  return found;
}

// What chunked transfer carries.
std::string unchunked(const std::string& bytes) {
  std::string text;
  for (std::size_t at = bytes.find("\r\n\r\n") + 4; at < bytes.size();) {
    const std::size_t line = bytes.find("\r\n", at);
    if (line == std::string::npos) break;
    const std::size_t size = std::stoul(bytes.substr(at, line - at), nullptr, 16);
    text += bytes.substr(line + 2, size);
    at = line + 2 + size + 2;
  }
  return text;
}

std::vector<json> views_in(const std::string& stream) {
  std::vector<json> views;
  const std::string text = unchunked(stream), begin = "event: view\ndata: ";
  for (std::size_t at = text.find(begin); at != std::string::npos; at = text.find(begin, at + 1)) {
    const std::size_t end = text.find("\n\n", at);
    if (end != std::string::npos) views.push_back(json::parse(text.substr(at + begin.size(), end - at - begin.size())));
  }
  return views;
}

// A request that is wrong somewhere: garbage, or a good one with bytes changed, cut, repeated or made huge.
std::string malformed(std::uint16_t port, std::uint64_t number) {
  const std::uint64_t key = random_key(7, "malformed");
  std::uint64_t draws = 0;
  const auto below = [&](std::uint64_t bound) { return random_below(bound, key, number, ++draws); };
  const auto garbage = [&](std::size_t size) {
    std::string bytes(size, '\0');
    for (char& c : bytes) c = static_cast<char>(below(256));
    return bytes;
  };
  const std::string kGood[] = {
      request_text(port, "GET", "/api/view?limit=3&filter=stage"), request_text(port, "GET", "/main.js"),
      request_text(port, "GET", "/api/timeline?from_us=1&to_us=2"),
      request_text(port, "POST", "/api/control", {{"Content-Type", "application/json"}}, R"({"do":"kill","node":0})")};
  std::string text = kGood[below(std::size(kGood))];
  switch (below(9)) {
    case 0:
      return garbage(1 + below(2000));
    case 1:
      return text.substr(0, below(text.size()));
    case 2:
      for (std::uint64_t i = 0; i <= below(8); ++i) text[below(text.size())] = static_cast<char>(below(256));
      return text;
    case 3:
      return text.insert(text.find(" HTTP"), std::string(below(70'000), '%'));
    case 4:
      return text.insert(text.find("\r\n") + 2, "X-Long: " + std::string(below(70'000), 'x') + "\r\n");
    case 5:
      return text.replace(text.find("127.0.0.1"), 9, garbage(1 + below(30)));
    case 6:
      return text.insert(text.find("\r\n") + 2,
                         fmt::format("Content-Length: {}\r\n", below(2) == 0 ? "-1" : "99999999999999999999"));
    case 7:
      return text.insert(text.find("\r\n") + 2, "Transfer-Encoding: chunked\r\n") +
             fmt::format("{:x}\r\n", below(1ULL << 62)) + garbage(below(300));
    default:
      text.erase(0, text.find(' '));
      return std::string(below(40), 'G') + text + text;
  }
}

}  // namespace

TEST_CASE("the page and all its files come with their types, and nothing that another page could use", "[web]") {
  const Served served;
  for (const auto& [path, type] : std::map<std::string, std::string>{{"/", "text/html; charset=utf-8"},
                                                                     {"/index.html", "text/html; charset=utf-8"},
                                                                     {"/style.css", "text/css; charset=utf-8"},
                                                                     {"/main.js", "text/javascript; charset=utf-8"},
                                                                     {"/icon.svg", "image/svg+xml"}}) {
    const Reply reply = served.get(path);
    INFO(path);
    CHECK(reply.status == 200);
    CHECK(reply.headers.at("content-type") == type);
    CHECK(reply.headers.at("content-security-policy") == "default-src 'self'");
    CHECK(reply.headers.at("x-content-type-options") == "nosniff");
    CHECK(reply.headers.at("referrer-policy") == "no-referrer");
    CHECK(reply.headers.at("cache-control") == "no-store");
    CHECK(!reply.headers.contains("access-control-allow-origin"));
    CHECK(reply.body == read_file(TROUPE_SOURCE_DIR "/launcher/web/" + (path == "/" ? "index.html" : path.substr(1))));
  }
  const Reply head = ask(served.server.port(), "HEAD", "/");
  CHECK((head.status == 200 && head.body.empty() && head.headers.at("content-length") != "0"));
  for (const char* path : {"/.clang-format", "/../config.h", "/%2e%2e/config.h", "//etc/passwd", "/web/index.html"}) {
    const Reply reply = served.get(path);
    CHECK(reply.status == 404);
    CHECK(!reply.error().empty());
  }
}

TEST_CASE("every path of the API answers in its form", "[web]") {
  const Served served;
  write_file(served.folder / "metrics.jsonl", "{\"kind\":\"step\",\"step\":1,\"loss\":2.5}\n");
  const json view = served.get("/api/view?limit=2&offset=1&sort=queue&filter=shard").json();
  CHECK((view["format"] == 1 && view["actors"].size() == 2 && view["actors_matching"] == 4));
  CHECK(view["actors"][0]["actor"] == "expert_shard 2");
  CHECK((view.contains("experts") && view["places"].size() == 6));
  const json timeline = served.get("/api/timeline?from_us=0&to_us=10&limit=5").json();
  for (const char* key : {"from_us", "to_us", "complete", "segments", "messages", "waits"})
    CHECK(timeline.contains(key));
  CHECK(served.get("/api/event?id=77").status == 404);
  CHECK(served.get("/api/metrics?after=0").json() ==
        json::parse(R"({"lines":[{"kind":"step","step":1,"loss":2.5}],"next":1})"));
  const Reply metrics = served.get("/metrics");
  CHECK(metrics.headers.at("content-type") == "text/plain; version=0.0.4; charset=utf-8");
  CHECK(metrics.body.find("troupe_actor_queue_messages{") != std::string::npos);
  CHECK(served.get("/api/nothing").error().find("nothing of this name") != std::string::npos);
  CHECK(served.get("/api/view?limit=9999").status == 400);
  CHECK(served.get("/api/stream?sort=size").status == 400);
  const Reply wrong = ask(served.server.port(), "PUT", "/api/view");
  CHECK((wrong.status == 405 && wrong.headers.at("allow") == "GET, HEAD"));
  CHECK(served.get("/api/control").headers.at("allow") == "POST");
}

TEST_CASE("a stream tells a view at once, then one about every second, and experts when they are new", "[web]") {
  const Served served({}, "{\"kind\":\"step\",\"step\":1,\"expert_rows\":[[3,4]],\"expert_layers\":[1]}\n");
  const Wire wire(served.server.port());
  wire.write(request_text(served.server.port(), "GET", "/api/stream?limit=1&filter=stage"));
  std::string text;
  CHECK(milliseconds([&] {
          text = wire.read([](const std::string& bytes) { return count(bytes, "event: view") >= 3; });
        }) < 4000);
  const Wire late(served.server.port());  // comes just after a look, and needn't wait for the next
  late.write(request_text(served.server.port(), "GET", "/api/stream"));
  CHECK(milliseconds([&] { late.read([](const std::string& bytes) { return count(bytes, "event: view") >= 1; }); }) <
        500);
  text += wire.read([](const std::string& bytes) { return bytes.find("\n\n") != std::string::npos; }, 2000);
  CHECK(parsed_reply(text).headers.at("content-type") == "text/event-stream");
  const auto views = views_in(text);
  REQUIRE(views.size() >= 3);
  for (const json& view : views) CHECK((view["actors"].size() == 1 && view["actors"][0]["actor"] == "stage 0"));
  CHECK(views[0]["experts"]["layers"][0]["counts"] == json::parse("[[3,4]]"));
  CHECK(!views[1].contains("experts"));
  CHECK(views[0]["now_us"] < views[1]["now_us"]);
}

TEST_CASE("however many watch, the run is looked at once a second", "[web]") {
  const Served served;
  std::vector<Wire> watchers;
  for (int i = 0; i < 40; ++i) {
    watchers.emplace_back(served.server.port());
    watchers.back().write(request_text(served.server.port(), "GET", fmt::format("/api/stream?limit={}", i)));
  }
  for (const Wire& watcher : watchers)
    CHECK(count(watcher.read([](const std::string& b) { return count(b, "event: view") >= 2; }), "event: view") >= 2);
  CHECK(served.source.looks <= 5);
}

TEST_CASE("control is obeyed for who may, and watchers see what came of it at once", "[web]") {
  Served served(controlling());
  const Wire wire(served.server.port());
  wire.write(request_text(served.server.port(), "GET", "/api/stream"));
  CHECK(!wire.read([](const std::string& bytes) { return count(bytes, "event: view") >= 1; }).empty());
  const Reply done = served.control(bearing(kToken), R"({"do":"kill","node":2})");
  CHECK((done.status == 200 && done.json() == json{{"said", "done"}}));
  CHECK(served.source.controlled.at(0).node == 2);
  CHECK(milliseconds([&] { wire.read([](const std::string& bytes) { return count(bytes, "event: view") >= 1; }); }) <
        800);
  Headers ours = bearing(kToken);
  ours["Origin"] = "http://" + served.own();
  CHECK(served.control(ours).status == 200);
  served.source.refusal = "the run is over";
  const Reply refused = served.control(bearing(kToken));
  CHECK((refused.status == 409 && refused.error() == "the run is over"));
}

TEST_CASE("control without the token, with another, for another page or where only shown is refused", "[web]") {
  const Served served(controlling());
  const auto refused = [&](const Reply& reply, int status, const std::string& word) {
    INFO(reply.body);
    CHECK(reply.status == status);
    CHECK(reply.error().find(word) != std::string::npos);
  };
  refused(served.control({}), 401, "token is needed");
  CHECK(served.control({}).headers.at("www-authenticate") == "Bearer");
  refused(served.control(bearing(std::string(64, 'b'))), 401, "not the run's");
  Headers headers = bearing(kToken);
  headers["Origin"] = "http://evil.example";
  refused(served.control(headers), 403, "another origin");
  headers = bearing(kToken);
  headers["Host"] = fmt::format("evil.example:{}", served.server.port());
  refused(served.control(headers), 403, "this server is called");
  headers = bearing(kToken);
  headers["Content-Type"] = "text/plain";
  refused(served.control(headers), 415, "JSON");
  refused(served.control(bearing(kToken), "{\"do\":"), 400, "JSON");
  refused(served.control(bearing(kToken), std::string(70'000, ' ')), 413, "bytes");
  const Served shown;
  refused(shown.control(bearing(kToken)), 403, "--allow-control");
  CHECK(served.source.controls + shown.source.controls == 0);
}

TEST_CASE("off loopback nothing of the run is read without the token", "[web]") {
  const Served served({.address = "0.0.0.0", .token = kToken});
  for (const char* path :
       {"/api/view", "/api/stream", "/api/timeline", "/api/metrics", "/metrics", "/api/event?id=1"}) {
    CHECK(served.get(path).status == 401);
    CHECK(served.get(path, bearing(std::string(64, 'b'))).status == 401);
  }
  CHECK(served.get("/").status == 200);
  CHECK(served.get("/api/view", bearing(kToken)).status == 200);
}

TEST_CASE("10,000 malformed requests do nothing, and a good one is answered as before", "[web]") {
  const Served served(controlling());
  const std::uint16_t port = served.server.port();
  constexpr std::uint64_t kRequests = 10'000, kClients = 4;
  std::vector<std::future<int>> clients;
  for (std::uint64_t client = 0; client < kClients; ++client)
    clients.push_back(std::async(std::launch::async, [port, client] {
      int answered = 0;
      for (std::uint64_t i = client; i < kRequests; i += kClients) {
        const Wire wire(port);
        wire.write(malformed(port, i));
        wire.finish();
        answered += wire.read([](const std::string&) { return false; }, 3000).empty() ? 0 : 1;
      }
      return answered;
    }));
  int answered = 0;
  CHECK(milliseconds([&] {
          for (auto& client : clients) answered += client.get();
        }) < 60'000);
  CHECK(answered > 1000);
  CHECK(served.source.controls == 0);
  std::int64_t best_ms = 1000;
  for (int i = 0; i < 5; ++i)  // the machine may be busy with other things
    best_ms = std::min(best_ms, milliseconds([&] { CHECK(served.get("/api/view").status == 200); }));
  CHECK(best_ms < 100);
}

TEST_CASE("200 idle connections and 50 requests half sent keep nobody waiting", "[web]") {
  const Served served;
  std::vector<Wire> idle;
  for (int i = 0; i < 200; ++i) idle.emplace_back(served.server.port());
  for (int i = 0; i < 50; ++i) {
    idle.emplace_back(served.server.port());
    const std::string text =
        request_text(served.server.port(), i % 2 == 0 ? "GET" : "POST", "/api/view", {{"Content-Length", "1000"}});
    idle.back().write(text.substr(0, text.size() - static_cast<std::size_t>(i % 5)));
  }
  for (const char* path : {"/", "/api/view", "/metrics"})
    CHECK(milliseconds([&] { CHECK(served.get(path).status == 200); }) < 1000);
}

TEST_CASE("a look that takes long keeps nobody from what needs none", "[web]") {
  Served served;
  std::promise<void> go_on;
  const std::shared_future<void> may(go_on.get_future());
  CHECK(served.get("/api/view").status == 200);
  const Wire wire(served.server.port());
  served.source.before_look = [may] { may.wait(); };
  wire.write(request_text(served.server.port(), "GET", "/api/stream"));
  wire.write(request_text(served.server.port(), "GET", "/api/view"));
  CHECK(milliseconds([&] { CHECK(served.get("/main.js").status == 200); }) < 1000);
  go_on.set_value();
  CHECK(wire.read([](const std::string& bytes) { return count(bytes, "event: view") >= 1; }).find("HTTP/1.1 200") == 0);
}

TEST_CASE("a server ends while watchers read, wait and are slow", "[web]") {
  auto served = std::make_unique<Served>();
  std::vector<Wire> watchers;
  for (int i = 0; i < 20; ++i) {
    watchers.emplace_back(served->server.port());
    watchers.back().write(request_text(served->server.port(), "GET", i % 2 == 0 ? "/api/stream" : "/api/view"));
  }
  CHECK(!watchers[0].read([](const std::string& bytes) { return count(bytes, "event: view") >= 1; }).empty());
  CHECK(milliseconds([&] { served.reset(); }) < 2000);
  CHECK(watchers[0].read([](const std::string&) { return false; }).find("HTTP/1.1") == std::string::npos);
}

TEST_CASE("while the run can't be looked at a stream hears comments", "[.large][web]") {
  Served served;
  served.source.before_look = [] { throw Error("gone"); };
  const Wire wire(served.server.port());
  wire.write(request_text(served.server.port(), "GET", "/api/stream"));
  CHECK(unchunked(wire.read([](const std::string& bytes) { return bytes.find("\n:\n\n") != std::string::npos; }, 9000))
            .find(":\n\n") != std::string::npos);
}

TEST_CASE("a port that is taken is told in a sentence", "[web]") {
  const Served served;
  Folder folder;
  MadeUpSource source(folder / "metrics.jsonl");
  CHECK_THROWS_WITH(WebServer(source, {.port = served.server.port()}), Catch::Contains("choose another with --port"));
  CHECK_THROWS_WITH(WebServer(source, {.address = "198.51.100.7", .token = kToken}), Catch::Contains("--listen"));
}

TEST_CASE("a run is served from its folder: its journals' causes resolve, and watching changes nothing", "[web]") {
  const Folder folder;
  const std::string run = folder / "run";
  REQUIRE(test::troupe(tiny_run(run, {"layout.nodes=2"})).code == 0);
  const std::string digest = test::troupe({"digest", run}).out;
  RunWatcher watcher(run);
  const WebServer server(watcher, {});
  const json view = get(server.port(), "/api/view").json();
  CHECK((view["source"] == "over" && view["healthy"] == true && view["nodes"].size() == 2));
  CHECK(view["can_control"] == false);
  CHECK(!get(server.port(), "/api/metrics").json()["lines"].empty());
  const json all = get(server.port(), "/api/timeline?limit=100000").json();
  CHECK(all["complete"] == true);
  std::set<std::string> ids{"0"};
  for (const char* kind : {"segments", "messages"})
    for (const json& row : all[kind]) ids.insert(row[0].get<std::string>());
  CHECK(ids.size() > 1000);
  for (const char* kind : {"segments", "messages"})
    CHECK(std::all_of(all[kind].begin(), all[kind].end(), [&](const json& row) { return ids.contains(row[1]); }));
  const json some = all["segments"][all["segments"].size() / 2];
  const json event = get(server.port(), "/api/event?id=" + some[0].get<std::string>()).json();
  CHECK(event["event"]["segment"] == some);
  CHECK(event["cause"].front()[0] == some[1]);
  const json few = get(server.port(), "/api/timeline?limit=100").json();
  CHECK((few["complete"] == false && few["segments"].size() + few["messages"].size() + few["waits"].size() == 100));
  CHECK(test::troupe({"digest", run}).out == digest);
}

TEST_CASE("the command says where the page is, and ends with Ctrl-C", "[web]") {
  const Folder folder;
  const std::string run = folder / "run";
  REQUIRE(test::troupe(tiny_run(run, {"train.steps=1"})).code == 0);
  Process process(troupe_command({"inspect", run, "--web", "--port", "0", "--allow-control"}));
  CHECK(process.follow([&] { return std::filesystem::exists(run + "/token") && !process.out().empty(); }));
  process.signal_group(SIGINT);
  const Ended ended = process.wait();
  CHECK(ended.code == 0);
  CHECK(ended.err.empty());
  const std::string token = read_file(run + "/token").substr(0, 64);
  CHECK(ended.out.find("/#token=" + token) != std::string::npos);
  CHECK(ended.out.find("ssh -L ") != std::string::npos);
  const Served taken;
  const Ended second = test::troupe({"inspect", run, "--web", "--port", std::to_string(taken.server.port())});
  CHECK(second.code == 1);
  CHECK(second.err.find("somebody listens there already") != std::string::npos);
  CHECK(count(second.err, "\n") == 1);
  CHECK(test::troupe({"inspect", run, "--web", "--listen", "gpu7"}).err.find("address in numbers") !=
        std::string::npos);
  CHECK(test::troupe({"inspect", run, "--port", "8080"}).code == 2);
}
