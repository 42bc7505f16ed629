// `troupe doctor --hosts`: starts a probe on every host as `troupe launch` starts a node, hears what its doctor finds, and
// has pairs measure the way between them. The law: whatever a host does, the command ends in time, tells it in a sentence,
// and nothing stays there: a probe ends with its standard input, which is held here.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "kernels/base/error.h"
#include "launcher/interrupts.h"
#include "launcher/launch/handshake.h"
#include "launcher/launch/launch_run.h"
#include "launcher/launch/slurm.h"
#include "launcher/pairs/findings.h"
#include "launcher/pairs/probe.h"
#include "launcher/tools.h"

namespace troupe {

using nlohmann::json;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

namespace {

constexpr std::size_t kApartMax = 8, kHostsMax = 1024;  // hosts whose pairs are measured one at a time; in all
constexpr milliseconds kStartMax{30'000}, kFactsMax{20'000}, kPairMax{30'000}, kClockMax{2000}, kEndMax{3000};
constexpr int kClockLooks = 5;

struct Host {
  HostFacts facts;
  pid_t pid = -1;
  int status = 0, log_fd = -1, leash_fd = -1;
  ControlSocket socket{-1};
  std::string log_rest, last_line, address;
  bool joined = false, told = false, gone = false;
  Clock::time_point heard = Clock::now();
  std::int64_t clock_asked_us = 0;  // of this machine's calendar
  int clock_looks = 0;
};

// A pair while it is measured.
struct Match {
  std::uint32_t number = 0;
  PairFacts* pair = nullptr;
  bool over = false;
};

std::int64_t calendar_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

class HostsDoctor {
 public:
  HostsDoctor(LaunchRequest request, RendezvousOptions rendezvous, HostsFacts facts)
      : program_(request.program), launch_(std::move(request), std::move(rendezvous)), facts_(std::move(facts)) {}
  ~HostsDoctor() { end_all(); }
  HostsFacts run();

 private:
  void start();
  void gather();
  void ask_clocks();
  void measure();
  void measure_round(const std::vector<HostPair>& pairs);
  void look(int milliseconds);
  void read_log(Host& host);
  void welcome();
  void hear(Host& host);
  void take(Host& host, const json& told);
  void take_facts(Host& host, const json& told);
  void take_clock(Host& host, const json& told);
  void take_match(Host& host, const json& told);
  void finish(Match& match);
  void beat();
  void suspect();
  void lose(Host& host, const std::string& why);
  bool reap(Host& host);
  void tell_absent(Host& host);
  void wait(milliseconds most, const std::function<bool()>& done);
  template <typename Ready>
  bool all(Ready ready) const {
    return std::all_of(hosts_.begin(), hosts_.end(), [&](const Host& host) { return host.gone || ready(host); });
  }
  bool all_end_within(milliseconds most);
  void end_all();

  const std::string program_;
  Launch launch_;
  HostsFacts facts_;
  std::vector<Host> hosts_;
  std::vector<Match> matches_;  // under way
  std::uint32_t next_match_ = 1;
  Clock::time_point beat_ = Clock::now();
};

// ---- Hosts ----------------------------------------------------------------------------------------------------------

void HostsDoctor::start() {
  hosts_.resize(launch_.places().size());
  for (std::size_t i = 0; i < hosts_.size(); ++i) {
    hosts_[i].facts.name = launch_.where(static_cast<std::uint32_t>(i));
    const Started started = launch_.start(static_cast<std::uint32_t>(i), 1);
    hosts_[i].pid = started.pid;
    hosts_[i].log_fd = started.log_fd;
    hosts_[i].leash_fd = started.leash_fd;
  }
}

bool HostsDoctor::reap(Host& host) {
  if (host.pid > 0 && waitpid(host.pid, &host.status, WNOHANG) == host.pid) host.pid = -1;
  return host.pid <= 0;
}

// What it says is of interest only if no process comes.
void HostsDoctor::read_log(Host& host) {
  std::array<char, 4096> bytes{};
  while (host.log_fd >= 0) {
    const ssize_t got = ::read(host.log_fd, bytes.data(), bytes.size());
    if (got == 0) close(std::exchange(host.log_fd, -1));
    if (got <= 0) return;
    host.log_rest.append(bytes.data(), static_cast<std::size_t>(got));
    for (std::size_t end = host.log_rest.find('\n'); end != std::string::npos; end = host.log_rest.find('\n')) {
      if (end > 0) host.last_line = host.log_rest.substr(0, std::min<std::size_t>(end, 400));
      host.log_rest.erase(0, end + 1);
    }
    if (host.log_rest.size() > 4096) host.log_rest.clear();
  }
}

// The code of its command tells more than that its output has ended.
void HostsDoctor::tell_absent(Host& host) {
  const auto deadline = Clock::now() + milliseconds(500);
  while (host.log_fd < 0 && !reap(host) && Clock::now() < deadline) usleep(5000);
  const bool ended = host.pid <= 0 && WIFEXITED(host.status);
  while (!host.last_line.empty() && std::isspace(static_cast<unsigned char>(host.last_line.back())))
    host.last_line.pop_back();
  lose(host, why_absent(host.facts.name, host.last_line, ended ? WEXITSTATUS(host.status) : -1, program_));
}

void HostsDoctor::welcome() {
  for (Rendezvous::Joined& joined : launch_.rendezvous().look()) {
    if (joined.node >= hosts_.size() || hosts_[joined.node].gone) continue;
    Host& host = hosts_[joined.node];
    host.socket = std::move(joined.socket);
    host.joined = true;
    host.heard = Clock::now();
    host.socket.send(json{{"kind", "probe"}, {"transport", facts_.transport}, {"interface", facts_.interface}}.dump());
  }
  for (const Rendezvous::Refused& refused : launch_.rendezvous().refused())
    if (refused.node < hosts_.size()) lose(hosts_[refused.node], "it was refused: " + refused.sentence);
}

void HostsDoctor::lose(Host& host, const std::string& why) {
  if (std::exchange(host.gone, true)) return;
  host.facts.problem = why;
  if (host.leash_fd >= 0) close(std::exchange(host.leash_fd, -1));
  host.socket = ControlSocket(-1);
  const auto index = static_cast<std::size_t>(&host - hosts_.data());
  for (Match& match : matches_)
    if (!match.over && (match.pair->hosts.a == index || match.pair->hosts.b == index)) finish(match);
}

// Facts take a host seconds, in which it says nothing.
void HostsDoctor::suspect() {
  for (Host& host : hosts_) {
    if (host.gone) continue;
    if (!host.joined && host.log_fd < 0) tell_absent(host);
    if (host.told && Clock::now() - host.heard > milliseconds(kProbeSilenceMs))
      lose(host,
           fmt::format("it is lost: silent for {} ms, so stopped, dead or cut off; nothing more was measured there",
                       kProbeSilenceMs));
  }
}

void HostsDoctor::beat() {
  if (Clock::now() - beat_ < milliseconds(kProbeBeatMs)) return;
  beat_ = Clock::now();
  for (Host& host : hosts_)
    if (host.joined && !host.gone) host.socket.send(json{{"kind", "alive"}}.dump());
}

void HostsDoctor::look(int milliseconds) {
  std::vector<pollfd> fds;
  for (const Host& host : hosts_) {
    const bool talks = host.joined && !host.gone;
    fds.push_back({talks ? host.socket.fd() : -1,
                   static_cast<short>(POLLIN | (talks && host.socket.wants_write() ? POLLOUT : 0)), 0});
    fds.push_back({host.log_fd, POLLIN, 0});
  }
  launch_.rendezvous().add_fds(fds);
  poll(fds.data(), fds.size(), milliseconds);
  if (interrupts() > 0) throw Interrupted();
  for (std::size_t i = 0; i < hosts_.size(); ++i) {
    read_log(hosts_[i]);
    if ((fds[2 * i].revents & POLLOUT) != 0) hosts_[i].socket.flush();
    if ((fds[2 * i].revents & (POLLIN | POLLHUP | POLLERR)) != 0) hear(hosts_[i]);
  }
  welcome();
  beat();
  suspect();
}

void HostsDoctor::wait(milliseconds most, const std::function<bool()>& done) {
  const auto deadline = Clock::now() + most;
  while (!done() && Clock::now() < deadline) look(50);
}

// ---- What they say --------------------------------------------------------------------------------------------------

void HostsDoctor::hear(Host& host) {
  if (host.gone) return;
  const bool open = host.socket.read();
  host.heard = Clock::now();
  while (!host.gone) {
    const auto line = host.socket.next();
    if (!line) break;
    take(host, json::parse(*line));
  }
  if (!open) lose(host, "it is lost: its connection ended; nothing more was measured there");
}

void HostsDoctor::take(Host& host, const json& told) {
  const std::string kind = told.at("kind");
  if (kind == "facts") take_facts(host, told);
  if (kind == "clock") take_clock(host, told);
  if (kind == "met" || kind == "measured" || kind == "unmeasured") take_match(host, told);
  if (kind == "failed") lose(host, "it can't take part: " + told.at("sentence").get<std::string>());
}

void HostsDoctor::take_facts(Host& host, const json& told) {
  HostFacts& facts = host.facts;
  facts.doctor = told.at("doctor");
  facts.machine = told.at("machine");
  facts.ports = told.at("ports");
  host.address = told.at("address");
  host.told = true;
  const json doctor = json::parse(facts.doctor);
  facts.version = doctor.at("version");
  facts.processor = doctor.at("processor").at("model");
  facts.cores = doctor.at("processor").at("cores_usable");
  facts.problems = doctor.at("problems").get<std::vector<std::string>>();
  facts.advice = doctor.at("advice").get<std::vector<std::string>>();
  const json& gpus = doctor.at("gpus").at("all");
  if (!gpus.empty()) facts.gpus = fmt::format("{} x {}", gpus.size(), gpus.at(0).at("name").get<std::string>());
  std::set<std::string> infiniband;
  for (const json& way : doctor.at("transport").at("ways")) {
    if (is_infiniband(way.at("transport"))) infiniband.insert(way.at("device"));
  }
  facts.infiniband.assign(infiniband.begin(), infiniband.end());
}

// The shortest way to and fro says most: its clock then was between what this one was before and after.
void HostsDoctor::take_clock(Host& host, const json& told) {
  const std::int64_t now_us = calendar_us(), there_us = told.at("us");
  const double doubt_us = static_cast<double>(now_us - host.clock_asked_us) / 2;
  if (host.clock_looks++ == 0 || doubt_us < host.facts.clock_doubt_us) {
    host.facts.clock_doubt_us = doubt_us;
    host.facts.clock_ahead_us = static_cast<double>(there_us - host.clock_asked_us) - doubt_us;
  }
}

void HostsDoctor::take_match(Host& host, const json& told) {
  for (Match& match : matches_) {
    if (match.number != told.at("match") || match.over) continue;
    PairFacts& pair = *match.pair;
    const std::string kind = told.at("kind");
    if (kind == "met") {  // who follows is ready: the other begins
      hosts_[pair.hosts.a].socket.send(json{
          {"kind", "meet"},
          {"match", match.number},
          {"peer", pair.hosts.b},
          {"address", hosts_[pair.hosts.b].address},
          {"leads", true}}.dump());
      return;
    }
    if (kind == "measured") pair.figures = pair_figures_from(told.at("figures"));
    if (kind == "unmeasured")
      pair.problem = fmt::format("{} says: {}", host.facts.name, told.at("problem").get<std::string>());
    return finish(match);
  }
}

void HostsDoctor::finish(Match& match) {
  match.over = true;
  for (const std::size_t one : {match.pair->hosts.a, match.pair->hosts.b})
    if (!hosts_[one].gone) hosts_[one].socket.send(json{{"kind", "part"}, {"match", match.number}}.dump());
}

// ---- The whole of it ------------------------------------------------------------------------------------------------

void HostsDoctor::gather() {
  wait(kStartMax, [&] { return all([](const Host& host) { return host.joined; }); });
  for (Host& host : hosts_)
    if (!host.joined && !host.gone) tell_absent(host);
  wait(kFactsMax, [&] { return all([](const Host& host) { return host.told; }); });
  for (Host& host : hosts_)
    if (!host.told && !host.gone)
      lose(host, fmt::format("its process did not tell what it found within {} s: is something there stuck? `troupe "
                             "doctor` on that host tells",
                             kFactsMax.count() / 1000));
}

void HostsDoctor::ask_clocks() {
  for (int looks = 1; looks <= kClockLooks; ++looks)
    for (Host& host : hosts_) {
      if (host.gone || host.clock_looks != looks - 1) continue;
      host.clock_asked_us = calendar_us();
      host.socket.send(json{{"kind", "clock"}}.dump());
      wait(kClockMax, [&] { return host.gone || host.clock_looks == looks; });
    }
}

void HostsDoctor::measure_round(const std::vector<HostPair>& pairs) {
  matches_.clear();
  for (PairFacts& pair : facts_.pairs) {
    if (std::find(pairs.begin(), pairs.end(), pair.hosts) == pairs.end()) continue;
    const Host &a = hosts_[pair.hosts.a], &b = hosts_[pair.hosts.b];
    if (!a.gone && !b.gone) matches_.push_back({next_match_++, &pair, false});
  }
  for (Match& match : matches_) {
    const auto [a, b] = match.pair->hosts;
    hosts_[b].socket.send(
        json{{"kind", "meet"}, {"match", match.number}, {"peer", a}, {"address", hosts_[a].address}, {"leads", false}}
            .dump());
  }
  wait(kPairMax, [&] { return std::all_of(matches_.begin(), matches_.end(), [](const Match& m) { return m.over; }); });
  for (Match& match : matches_) {
    if (match.over) continue;
    match.pair->problem = fmt::format("no figures within {} s", kPairMax.count() / 1000);
    finish(match);
  }
}

void HostsDoctor::measure() {
  const auto rounds = rounds_of(hosts_.size(), facts_.together);
  for (const auto& round : rounds)
    for (const HostPair& pair : round) facts_.pairs.push_back({pair, std::nullopt, ""});
  std::size_t done = 0;
  const bool shows = isatty(STDERR_FILENO) == 1;
  for (const auto& round : rounds) {
    if (shows && !round.empty())
      std::fprintf(stderr, "\r\033[Kmeasuring: round %zu of %zu, %s", ++done, rounds.size(),
                   fmt::format("{} to {}{}", hosts_[round[0].a].facts.name, hosts_[round[0].b].facts.name,
                               round.size() > 1 ? ", ..." : "")
                       .c_str());
    measure_round(round);
  }
  matches_.clear();
  if (shows) std::fputs("\r\033[K", stderr);
}

HostsFacts HostsDoctor::run() {
  catch_interrupts();
  signal(SIGPIPE, SIG_IGN);
  start();
  gather();
  ask_clocks();
  measure();
  for (const Host& host : hosts_) facts_.hosts.push_back(host.facts);
  return facts_;
}

// False: some command is still running.
bool HostsDoctor::all_end_within(milliseconds most) {
  const auto deadline = Clock::now() + most;
  for (;; usleep(5000)) {
    bool left = false;
    for (Host& host : hosts_) {
      read_log(host);
      if (host.joined && !host.gone && host.socket.wants_write()) host.socket.flush();
      left = !reap(host) || left;
    }
    if (!left) return true;
    if (Clock::now() > deadline) return false;
  }
}

// A probe ends at a word, else with its standard input; the command that brought it there may hang.
void HostsDoctor::end_all() {
  for (Host& host : hosts_)
    if (host.joined && !host.gone) host.socket.send(json{{"kind", "end"}}.dump());
  bool ended = all_end_within(kEndMax);
  for (Host& host : hosts_)
    if (host.leash_fd >= 0) close(std::exchange(host.leash_fd, -1));
  ended = ended || all_end_within(kEndMax);
  for (Host& host : hosts_) {
    if (!ended && host.pid > 0 && kill(host.pid, SIGKILL) == 0) waitpid(host.pid, &host.status, 0);
    if (host.log_fd >= 0) close(std::exchange(host.log_fd, -1));
  }
}

// One process a host, whatever it takes in a run.
std::vector<HostLine> each_once(const std::vector<HostLine>& hosts) {
  std::vector<HostLine> once;
  for (const HostLine& host : hosts)
    if (std::none_of(once.begin(), once.end(), [&](const HostLine& other) { return other.name == host.name; }))
      once.push_back({host.name, 1});
  return once;
}

std::vector<HostLine> hosts_of(const OnWhat& on) {
  if (on.kind == OnWhat::Kind::slurm && !in_allocation(environment))
    throw Error("--on slurm looks at the nodes of a job: start it in the job's script, or in salloc");
  if (on.kind != OnWhat::Kind::local) return each_once(hosts_on(on));
  if (on.processes < 1) throw Error("--on local: how many processes stand for hosts? such as --on local:2");
  std::vector<HostLine> hosts;
  for (int i = 1; i <= on.processes; ++i) hosts.push_back({fmt::format("local{}", i), 1});
  return hosts;
}

}  // namespace

int doctor_hosts(const DoctorOptions& options) try {
  const OnWhat on = parse_on(options.on);
  const std::vector<HostLine> hosts = hosts_of(on);
  if (hosts.size() > kHostsMax) throw Error("{} hosts are named, at most {} are looked at", hosts.size(), kHostsMax);
  LaunchRun run;
  run.ssh = options.ssh;
  run.program = options.program;
  LaunchRequest request = launch_request(run, hosts, on.kind == OnWhat::Kind::slurm);
  request.here = on.kind == OnWhat::Kind::local;
  const std::string cores = request.slurm ? environment("SLURM_CPUS_ON_NODE") : "";
  request.threads = cores.empty() ? 0 : std::atoi(cores.c_str());
  const auto [first, last] = parse_ports(options.ports);
  HostsFacts facts;
  facts.transport = !request.here && on_several(request) ? "any" : "auto";
  facts.interface = options.interface;
  facts.together = hosts.size() > kApartMax;
  facts = HostsDoctor(std::move(request), {random_words(), "", options.interface, first, last, false}, facts).run();
  const Findings findings = findings_of(facts);
  std::fputs((options.json ? hosts_json(facts, findings) : hosts_text(facts, findings)).c_str(), stdout);
  return can_run(findings) ? 0 : 1;
} catch (const Interrupted&) {
  std::fprintf(stderr, "\ninterrupted: nothing was left on the hosts\n");
  return 130;
}

}  // namespace troupe
