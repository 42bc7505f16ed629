// Who may ask the inspector's server for what, and what is understood by it: pure rules, and the token's file.
#include "launcher/inspect/web_guard.h"

#include <sys/stat.h>
#include <unistd.h>

#include "launcher/inspect/control_json.h"
#include "launcher/inspect/run_token.h"
#include "tests/support/run.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;

namespace {

const std::string kToken(64, 'a');
const GuardRules kReads{.address = "127.0.0.1", .port = 8080};
const GuardRules kControls{.address = "127.0.0.1", .port = 8080, .token = kToken, .allow_control = true};
const GuardRules kEverywhere{.address = "0.0.0.0", .port = 8080, .machine = "Gpu7", .token = kToken};
const GuardRules kOne{.address = "10.1.2.3", .port = 8080, .machine = "gpu7", .token = kToken};

Asked of(const std::string& method, const std::string& path) {
  return {.method = method, .path = path, .host = "127.0.0.1:8080"};
}
Asked with_token(Asked asked, const std::string& token = kToken) {
  asked.authorization = "Bearer " + token;
  return asked;
}
Asked called(Asked asked, const std::string& host) {
  asked.host = host;
  return asked;
}
Asked from(Asked asked, const std::string& origin) {
  asked.origin = origin;
  return asked;
}
Asked control() {
  Asked asked = of("POST", "/api/control");
  asked.content_type = "application/json";
  return asked;
}

// 0: it may.
int status(const GuardRules& rules, const Asked& asked) {
  const auto no = refused(rules, asked);
  if (no) CHECK(no->sentence.size() > 20);
  return no ? no->status : 0;
}

std::string why_not(const std::string& body) {
  try {
    control_of(body);
  } catch (const Misasked& problem) {
    return problem.what();
  }
  return "";
}

}  // namespace

TEST_CASE("on this machine everybody reads, and nobody controls unless the server was started for it", "[web]") {
  for (const char* path : {"/", "/main.js", "/api/view", "/api/stream", "/metrics", "/nothing"}) {
    CHECK(status(kReads, of("GET", path)) == 0);
    CHECK(status(kReads, of("HEAD", path)) == 0);
    CHECK(status(kControls, of("GET", path)) == 0);
  }
  CHECK(status(kReads, with_token(control())) == 403);
  CHECK(refused(kReads, control())->sentence.find("--allow-control") != std::string::npos);
}

TEST_CASE("control needs the run's token, word by word", "[web]") {
  CHECK(status(kControls, control()) == 401);
  CHECK(status(kControls, with_token(control())) == 0);
  for (const std::string& wrong : {std::string(64, 'b'), std::string(63, 'a'), std::string(65, 'a'), std::string()})
    CHECK(status(kControls, with_token(control(), wrong)) == 401);
  Asked basic = control();
  basic.authorization = "Basic " + kToken;
  CHECK(status(kControls, basic) == 401);
  GuardRules none = kControls;
  none.token = "";
  CHECK(status(none, with_token(control(), "")) == 401);
}

TEST_CASE("off this machine reading needs the token too, but not the page's own files", "[web]") {
  for (const GuardRules& rules : {kEverywhere, kOne}) {
    for (const char* path : {"/api/view", "/api/stream", "/api/timeline", "/metrics", "/api", "/api/nothing"}) {
      CHECK(status(rules, of("GET", path)) == 401);
      CHECK(status(rules, with_token(of("GET", path))) == 0);
      CHECK(status(rules, with_token(of("GET", path), std::string(64, 'b'))) == 401);
    }
    CHECK(status(rules, of("GET", "/")) == 0);
    CHECK(status(rules, of("GET", "/main.js")) == 0);
  }
}

TEST_CASE("a server answers to its own names alone, so a name server can't lend it to another page", "[web]") {
  const Asked asked = with_token(of("GET", "/api/view"));
  for (const char* host : {"localhost:8080", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080"}) {
    CHECK(status(kReads, called(asked, host)) == 0);
    CHECK(status(kEverywhere, called(asked, host)) == 0);
  }
  for (const char* host : {"evil.example:8080", "127.0.0.1", "127.0.0.1:8081", "127.0.0.1:80801", "localhost.evil:8080",
                           "", ":8080", "10.1.2.3:8080", "gpu7:8080", "127.0.0.1:8080:8080"})
    CHECK(status(kReads, called(asked, host)) == 403);
  for (const char* host : {"10.1.2.3:8080", "gpu7:8080"}) {
    CHECK(status(kOne, called(asked, host)) == 0);
    CHECK(status(kEverywhere, called(asked, host)) == 0);
  }
  CHECK(status(kOne, called(asked, "10.1.2.4:8080")) == 403);
  CHECK(status(kEverywhere, called(asked, "evil.example:8080")) == 403);
  Asked silent = asked;
  silent.host.reset();
  CHECK(status(kReads, silent) == 403);
  CHECK(status(GuardRules{.address = "127.0.0.1", .port = 80}, called(asked, "localhost")) == 0);
}

TEST_CASE("a page of another origin gets nothing, whatever it asks for", "[web]") {
  for (const Asked& asked : {of("GET", "/"), of("GET", "/api/view"), with_token(control())}) {
    CHECK(status(kControls, from(asked, "http://127.0.0.1:8080")) == 0);
    for (const char* origin : {"null", "", "http://evil.example", "https://127.0.0.1:8080", "http://127.0.0.1:8081",
                               "http://localhost:8080", "http://127.0.0.1:8080.evil.example"})
      CHECK(status(kControls, from(asked, origin)) == 403);
  }
}

TEST_CASE("only reading and control are known, and control in JSON of a bounded size", "[web]") {
  for (const char* method : {"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "", "X"})
    CHECK(status(kControls, with_token(of(method, "/api/view"))) == 405);
  for (const char* method : {"GET", "HEAD", "PUT"})
    CHECK(status(kControls, with_token(of(method, kControlPath))) == 405);
  Asked asked = with_token(control());
  for (const char* type : {"text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""}) {
    asked.content_type = type;
    CHECK(status(kControls, asked) == 415);
  }
  asked.content_type = "Application/JSON; charset=utf-8";
  CHECK(status(kControls, asked) == 0);
  asked.body_bytes = kBodyBytesMax;
  CHECK(status(kControls, asked) == 0);
  asked.body_bytes = kBodyBytesMax + 1;
  CHECK(status(kControls, asked) == 413);
  Asked twice = of("GET", "/");
  twice.repeated = true;
  CHECK(status(kReads, twice) == 400);
}

TEST_CASE("an address to listen on is told in numbers", "[web]") {
  CHECK(listen_address("localhost") == "127.0.0.1");
  CHECK(listen_address("0.0.0.0") == "0.0.0.0");
  CHECK(listen_address("::1") == "[::1]");
  CHECK(listen_address("[0:0:0:0:0:0:0:1]") == "[::1]");
  for (const char* wrong : {"", "gpu7", "1.2.3", "1.2.3.4.5", "127.0.0.1:80", "[::1", "256.0.0.1"})
    CHECK_THROWS_AS(listen_address(wrong), Error);
  CHECK((is_loopback("127.0.0.1") && is_loopback("127.9.9.9") && is_loopback("[::1]")));
  CHECK((!is_loopback("0.0.0.0") && !is_loopback("[::]") && !is_loopback("10.0.0.1")));
}

TEST_CASE("a run's token is made once, and is its owner's alone to read", "[web]") {
  const Folder folder;
  const std::string path = folder / "token";
  const std::string token = run_token(folder / "");
  CHECK(token.size() == 64);
  CHECK(run_token(folder / "") == token);
  struct stat about {};
  REQUIRE(stat(path.c_str(), &about) == 0);
  CHECK((about.st_mode & 0777) == 0600);
  for (const mode_t mode : {0640U, 0604U, 0644U}) {
    chmod(path.c_str(), mode);
    CHECK_THROWS_WITH(run_token(folder / ""), Catch::Contains("others may read"));
  }
  chmod(path.c_str(), 0600);
  write_file(path, "abc");
  CHECK_THROWS_WITH(run_token(folder / ""), Catch::Contains("no token"));
  unlink(path.c_str());
  CHECK(run_token(folder / "") != token);
}

TEST_CASE("what is to be done is taken word by word", "[web]") {
  CHECK(control_of(R"({"do":"pause"})").what == Control::Do::pause);
  CHECK(control_of(R"({"do":"kill","node":3})").node == 3);
  const Control run = control_of(R"({"do":"run","messages":500,"until":{"actor":"expert shard 1","receives":"Vote"}})");
  CHECK((run.what == Control::Do::run && run.messages == 500 && run.receives == "Vote"));
  CHECK(*run.receiver == Address{Role::expert_shard, 1});
  CHECK(control_of(R"({"do":"run","until":{"step":7}})").until_step == 7);
  CHECK(control_of(R"({"do":"run","until":{"seconds":1.5}})").until_seconds == 1.5);
  const Control delay = control_of(R"({"do":"delay","id":"18446744073709551615","us":2500})");
  CHECK((delay.id == 18446744073709551615U && delay.delay_seconds == Approx(0.0025)));
}

TEST_CASE("what is said wrongly, or too much, is refused with a sentence", "[web]") {
  for (const std::string wrong : {"",
                                  "[]",
                                  "7",
                                  "{",
                                  "{\"do\"",
                                  R"({"do":7})",
                                  R"({"do":"explode"})",
                                  R"({"do":"kill"})",
                                  R"({"do":"kill","node":-1})",
                                  R"({"do":"kill","node":1.5})",
                                  R"({"do":"kill","node":"1"})",
                                  R"({"do":"kill","node":99999999999999999999})",
                                  R"({"do":"pause","node":1})",
                                  R"({"do":"step","messages":2})",
                                  R"({"do":"run"})",
                                  R"({"do":"run","messages":0})",
                                  R"({"do":"run","until":{}})",
                                  R"({"do":"run","until":7})",
                                  R"({"do":"run","until":{"step":1,"seconds":2}})",
                                  R"({"do":"run","until":{"receives":"Vote"}})",
                                  R"({"do":"run","until":{"actor":"stage 0","receives":"Nothing"}})",
                                  R"({"do":"run","until":{"seconds":1e300}})",
                                  R"({"do":"back"})",
                                  R"({"do":"drop"})",
                                  R"({"do":"drop","id":"1","actor":"stage 0"})",
                                  R"({"do":"drop","id":1})",
                                  R"({"do":"drop","id":"x1"})",
                                  R"({"do":"delay","id":"1"})",
                                  R"({"do":"delay","id":"1","us":-1})",
                                  R"({"do":"drop","actor":"ghost 1"})",
                                  R"({"do":"drop","actor":"stage"})",
                                  R"({"do":"drop","actor":"stage 1x"})"}) {
    INFO(wrong);
    CHECK(!why_not(wrong).empty());
  }
  CHECK(!why_not(std::string(60'000, '[')).empty());
}
