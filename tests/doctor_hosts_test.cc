// `troupe doctor --hosts` as a person runs it. Here ssh is a script that runs what the host would run
// (tests/cluster/here_ssh); tests/cluster/run has real hosts.
#include <fmt/format.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "actors/build_info.h"
#include "launcher/launch/handshake.h"
#include "messages/control_socket.h"
#include "tests/support/run.h"
#include "tests/support/small_run.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;
using nlohmann::json;

namespace {

struct Hosts {
  Arguments command(const std::string& names, const Arguments& more = {}) const {
    write_file(folder / "hosts", names);
    return Arguments{"/usr/bin/env",   "-C",    here(), TROUPE_BINARY, "doctor", "--hosts",
                     folder / "hosts", "--ssh", ssh,    "--interface", interface} +
           more;
  }
  std::string here() const {
    std::filesystem::create_directories(folder / "here");
    return folder / "here";
  }
  Folder folder;
  std::string interface = "lo";
  std::string ssh = TROUPE_SOURCE_DIR "/tests/cluster/here_ssh";
};

// The probes of this doctor, by the number of their host: processes that come to it and were started by it.
std::vector<pid_t> probes_of(pid_t doctor) {
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string stat = read_file(entry.path() / "stat");
    if (!has(read_file(entry.path() / "cmdline"), "--join") || stat.find(')') == std::string::npos) continue;
    if (std::stoi(stat.substr(stat.rfind(')') + 4)) == doctor) found.push_back(std::stoi(name));
  }
  return found;
}

bool gone(const std::vector<pid_t>& pids) {
  const auto runs = [](pid_t pid) { return ::kill(pid, 0) == 0; };
  for (int tenths = 0; tenths < 50; ++tenths) {
    if (std::none_of(pids.begin(), pids.end(), runs)) return true;
    ::usleep(100'000);
  }
  return false;
}

// So that they are measured now: the doctor's own looks take less.
std::vector<pid_t> all_there(Process& process, std::size_t hosts) {
  std::vector<pid_t> probes;
  REQUIRE(process.follow([&] { return (probes = probes_of(process.pid())).size() == hosts; }));
  const auto begin = std::chrono::steady_clock::now();
  process.follow([&] { return std::chrono::steady_clock::now() - begin > std::chrono::milliseconds(2500); });
  return probes;
}

int connect_here(std::uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0);
  return fd;
}

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

}  // namespace

TEST_CASE("the doctor looks at hosts, measures each pair, and leaves nothing there", "[doctor][hosts]") {
  const Hosts hosts;
  const Ended ended = run(hosts.command("alpha slots=2\nbeta\nalpha\n", {"--json"}));
  INFO(ended.out << ended.err);
  const json told = json::parse(ended.out);
  CHECK(ended.code == (told["can_run"] == true ? 0 : 1));
  CHECK(ended.err == "");
  REQUIRE(told["hosts"].size() == 2);
  CHECK(told["transport"] == "any");
  CHECK(told["hosts"][1]["name"] == "beta");
  CHECK(told["hosts"][1]["doctor"]["processor"]["cores_usable"] >= 1);
  CHECK(told["hosts"][1]["clock_ahead_us"].get<double>() < 1e5);
  REQUIRE(told["pairs"].size() == 1);
  const json& pair = told["pairs"][0];
  REQUIRE(pair["measured"] == true);
  CHECK(pair["a_to_b_bytes_per_second"] > 50e6);
  CHECK(pair["b_to_a_bytes_per_second"] > 50e6);
  CHECK(pair["both_bytes_per_second"] > 50e6);
  CHECK(pair["one_way_us"] > 0.1);
  CHECK(pair["one_way_us"] <= pair["one_way_us_99"]);
  CHECK(std::filesystem::is_empty(hosts.here()));
}

TEST_CASE("processes here stand for hosts, and talk as those of a run here would", "[doctor][hosts]") {
  const Ended ended = troupe::test::troupe({"doctor", "--on", "local:2"});
  INFO(ended.out << ended.err);
  CHECK(has(ended.out, "2 hosts, 1 pair, over shared memory: one pair at a time"));
  CHECK(has(ended.out, "GB/s of large messages"));
  CHECK(ended.code == (has(ended.out, "a run can start on these hosts\n") ? 0 : 1));
}

TEST_CASE("a host that can't be reached, or lacks the program, is told, and the others are measured",
          "[doctor][hosts]") {
  Hosts hosts;
  hosts.ssh = hosts.folder / "ssh";
  write_file(
      hosts.ssh,
      "#!/bin/sh\ncase \" $* \" in *\" far \"*) echo 'ssh: connect to host far port 22: No route to host' >&2; exit "
      "255;; esac\nexec " TROUPE_SOURCE_DIR "/tests/cluster/here_ssh \"$@\"\n");
  std::filesystem::permissions(hosts.ssh, std::filesystem::perms::owner_all);
  const Ended ended = run(hosts.command("alpha\nfar\nbeta\n"));
  INFO(ended.out << ended.err);
  CHECK(ended.code == 1);
  CHECK(has(ended.out,
            "problem: far: it can't be reached (ssh: connect to host far port 22: No route to host): `ssh far "
            "true` must work"));
  CHECK(count_of(ended.out, "problem: ") == 1);
  CHECK(has(ended.out, "far    not there\n"));
  CHECK(ended.err == "");
  const Ended none = run(hosts.command("alpha\n", {"--program", "/no/such"}));
  INFO(none.out << none.err);
  CHECK(none.code == 1);
  CHECK(has(none.out, "problem: alpha: the program can't be started there ("));
  CHECK(has(none.out, "install this build at /no/such"));
}

TEST_CASE("a host with another build is told, with both builds", "[doctor][hosts]") {
  Hosts hosts;
  hosts.ssh = hosts.folder / "ssh";
  const std::string told = hosts.folder / "told";
  // On the host called old nothing is started: what was to be, and its standard input, is told here.
  write_file(hosts.ssh, fmt::format("#!/bin/sh\ncase \" $* \" in *\" old \"*) read token; for line; do :; done; echo "
                                    "\"$token $line \" >{0}.new; mv {0}.new {0}; exec cat >/dev/null;; esac\nexec {1} "
                                    "\"$@\"\n",
                                    told, TROUPE_SOURCE_DIR "/tests/cluster/here_ssh"));
  std::filesystem::permissions(hosts.ssh, std::filesystem::perms::owner_all);
  Process process(hosts.command("alpha\nold\n"), 60'000);
  REQUIRE(process.follow([&] { return std::filesystem::exists(told); }));
  const std::string text = read_file(told), token = text.substr(0, text.find(' '));
  std::string addresses = text.substr(text.find("--join ") + 7);
  addresses = addresses.substr(0, addresses.find(' '));
  ControlSocket socket(connect_here(static_cast<std::uint16_t>(std::stoi(addresses.substr(addresses.rfind(':') + 1)))));
  const JoinRequest request{kJoinProtocol, "troupe 0.0", random_words(), "", 1, 1};
  socket.send(to_line(request));
  REQUIRE(process.follow([&] {
    if (!socket.read()) return true;
    if (const auto line = socket.next(); line && has(*line, "prove")) {
      const std::string proof = proof_of(token, false, request, json::parse(*line).at("words"));
      socket.send(json{{"kind", "proof"}, {"proof", proof}}.dump());
    }
    return false;
  }));
  const Ended ended = process.wait();
  INFO(ended.out << ended.err);
  CHECK(ended.code == 1);
  CHECK(ended.err == "");
  CHECK(count_of(ended.out, "problem: ") == 1);
  CHECK(
      has(ended.out, "problem: old: it was refused: it is of troupe 0.0 (protocol 1), this run of " + build_version()));
}

TEST_CASE("a host that is killed or stopped while it is measured is told once, and none is left", "[doctor][hosts]") {
  const bool stopped = GENERATE(false, true);
  const Hosts hosts;
  Process process(hosts.command("alpha\nbeta\ngamma\ndelta\n"), 60'000);
  const std::vector<pid_t> probes = all_there(process, 4);
  ::kill(probes[1], stopped ? SIGSTOP : SIGKILL);
  const Ended ended = process.wait();
  INFO(ended.out << ended.err);
  CHECK(ended.code == 1);
  CHECK(count_of(ended.out, "problem: ") == 1);
  CHECK(has(ended.out, stopped ? ": it is lost: silent for 5000 ms" : ": it is lost: its connection ended"));
  CHECK(has(ended.out, "GB/s of large messages"));
  CHECK(gone(probes));
}

TEST_CASE("an interrupted doctor leaves no process, and neither does a killed one", "[doctor][hosts]") {
  const int signal = GENERATE(SIGINT, SIGKILL);
  const Hosts hosts;
  Process process(hosts.command("alpha\nbeta\ngamma\ndelta\n"), 60'000);
  const std::vector<pid_t> probes = all_there(process, 4);
  ::kill(process.pid(), signal);
  if (signal == SIGINT) {
    const Ended ended = process.wait();
    INFO(ended.out << ended.err);
    CHECK(ended.code == 130);
    CHECK(has(ended.err, "interrupted: nothing was left on the hosts"));
  }
  CHECK(gone(probes));
}

TEST_CASE("a command that hangs on its way to a host is given up and ended with the doctor", "[doctor][hosts]") {
  Hosts hosts;
  hosts.ssh = hosts.folder / "ssh";
  const std::string told = hosts.folder / "told";
  // What is called hung closes its output, as a connection does that is lost, and never ends.
  write_file(hosts.ssh, fmt::format("#!/bin/sh\ncase \" $* \" in *\" hung \"*) echo $$ >{}; exec sleep 1000 >/dev/null "
                                    "2>&1;; esac\nexec {} \"$@\"\n",
                                    told, TROUPE_SOURCE_DIR "/tests/cluster/here_ssh"));
  std::filesystem::permissions(hosts.ssh, std::filesystem::perms::owner_all);
  const Ended ended = run(hosts.command("alpha\nhung\n"));
  INFO(ended.out << ended.err);
  CHECK(ended.code == 1);
  CHECK(has(ended.out, "problem: hung: it can't be reached in time (nothing was said)"));
  CHECK(::kill(std::stoi(read_file(told)), 0) == -1);
}

TEST_CASE("what can't be looked at is refused in a sentence", "[doctor][hosts]") {
  Hosts hosts;
  const auto refused = [](const Ended& ended) {
    INFO(ended.out << ended.err);
    CHECK(ended.code == 1);
    CHECK(ended.out == "");
    return ended.err;
  };
  const Folder folder;
  CHECK(has(refused(troupe::test::troupe({"doctor", "--hosts", "/no/hosts"})), "/no/hosts: no such file"));
  CHECK(has(refused(run(hosts.command("# nobody\n"))), "names no host"));
  CHECK(has(refused(troupe::test::troupe({"doctor", "--on", "cloud"})), "must be local, local:N, hosts:FILE or slurm"));
  CHECK(has(refused(troupe::test::troupe({"doctor", "--on", "local"})), "such as --on local:2"));
  CHECK(has(refused(run(hosts.command("alpha\n", {"--ports", "x"}))), "\"x\" are no ports"));
  CHECK(has(refused(run({"/usr/bin/env", "-u", "SLURM_JOB_ID", TROUPE_BINARY, "doctor", "--on", "slurm"})),
            "start it in the job's script, or in salloc"));
  hosts.interface = "nowhere0";
  const Ended no_network = run(hosts.command("alpha\nbeta\n"));
  INFO(no_network.out << no_network.err);
  CHECK(no_network.code == 1);
  CHECK(count_of(no_network.out, "problem: ") == 1);
  CHECK(has(no_network.out, "problem: alpha, beta: it can't take part: there is no network interface \"nowhere0\""));
}
