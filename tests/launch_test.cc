// Launching on other machines: what is asked for, who may join, and runs whose processes come from elsewhere. Here ssh is
// a script that runs what the host would run (tests/cluster/here_ssh); tests/cluster/run has real hosts.
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "actors/build_info.h"
#include "kernels/base/error.h"
#include "launcher/inspect/run_token.h"
#include "launcher/launch/join.h"
#include "launcher/launch/launch_run.h"
#include "launcher/launch/slurm.h"
#include "tests/support/run.h"
#include "tests/support/small_run.h"

#include "tests/support/catch.h"

using namespace troupe;
using namespace troupe::test;

namespace {

template <typename Call>
std::string refusal(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// A connection as anybody may open one, here.
int connect_here(std::uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0);
  return fd;
}

const std::string kToken(2 * kTokenBytes, 'a');

// A rendezvous that is looked at until somebody came, or time is over.
struct Met {
  explicit Met(std::string digest = "d") : rendezvous({kToken, std::move(digest), "lo", 0, 0}) {}
  std::vector<Rendezvous::Joined> look(const std::atomic<bool>& over) {
    std::vector<Rendezvous::Joined> all;
    while (!over && all.empty()) {
      for (auto& joined : rendezvous.look()) all.push_back(std::move(joined));
      ::usleep(1000);
    }
    return all;
  }
  // The sentence by which the node was refused; empty: it has joined.
  std::string joins(JoinOptions options) {
    options.addresses = rendezvous.addresses();
    std::string problem;
    std::atomic<bool> over = false;
    std::thread node([&] {
      problem = refusal([&] {
        ControlSocket socket = join_run(options);
        bool open = true;
        for (int i = 0; i < 500 && open; ++i) {
          open = socket.read();
          if (auto line = socket.next()) throw Error("{}", *line);
          ::usleep(1000);
        }
      });
      over = true;
    });
    const auto joined = look(over);
    node.join();
    return joined.empty() && problem.empty() ? "nothing was said" : problem;
  }
  Rendezvous rendezvous;
};

Arguments launch_command(const Folder& folder, const std::string& run, const Arguments& sets,
                         const std::string& hosts) {
  write_file(folder / "hosts", hosts);
  Arguments command = with_sets(
      {"/usr/bin/env", "FAR=" + folder / "elsewhere", TROUPE_BINARY, "launch", TROUPE_SOURCE_DIR "/configs/tiny.toml",
       "--on", "hosts:" + folder / "hosts", "--ssh", TROUPE_SOURCE_DIR "/tests/cluster/here_ssh", "--out", run},
      tiny_sets(sets));
  return command;
}

// Node processes of a run, wherever they are from: they have its boards mapped.
std::vector<pid_t> nodes_of(const std::string& run) {
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (has(read_file(entry.path() / "cmdline"), "--join") && has(read_file(entry.path() / "maps"), run + "/boards"))
      found.push_back(std::stoi(name));
  }
  return found;
}

const Arguments kTwo{"layout.expert_shards=2", "limits.silence_ms=5000"};

}  // namespace

TEST_CASE("a hosts file names hosts and how many processes each takes", "[launch]") {
  const auto hosts = parse_hosts("# ours\nalpha slots=2\n\n beta # the old one\n", "h");
  REQUIRE(hosts.size() == 2);
  CHECK((hosts[0].name == "alpha" && hosts[0].slots == 2));
  CHECK((hosts[1].name == "beta" && hosts[1].slots == 1));
  CHECK(refusal([] { parse_hosts("alpha\nbeta slot=3", "h"); }).starts_with("h:2: \"slot=3\" isn't understood"));
  CHECK(has(refusal([] { parse_hosts("alpha slots=0", "h"); }), "h:1: "));
  CHECK(has(refusal([] { parse_hosts("-oProxyCommand=x", "h"); }), "is no host's name"));
  CHECK(refusal([] { parse_hosts("# nobody\n", "h"); }) == "h: names no host");
}

TEST_CASE("where to run is told in a word", "[launch]") {
  CHECK(parse_on("local").processes == 0);
  CHECK(parse_on("local:4").processes == 4);
  CHECK(parse_on("hosts:a b").file == "a b");
  CHECK(parse_on("slurm").kind == OnWhat::Kind::slurm);
  for (const char* wrong : {"local:", "local:0", "local:x", "hosts:", "hosts", "slurm:2", "cloud", ""})
    CHECK(has(refusal([&] { parse_on(wrong); }), "must be local, local:N, hosts:FILE or slurm"));
  CHECK(parse_ports("0") == std::pair<std::uint16_t, std::uint16_t>(0, 0));
  CHECK(parse_ports("4711-4720") == std::pair<std::uint16_t, std::uint16_t>(4711, 4720));
  for (const char* wrong : {"", "x", "70000", "20-10", "0-5", "-5"})
    CHECK(has(refusal([&] { parse_ports(wrong); }), "are no ports"));
}

TEST_CASE("Slurm's lists of nodes and counts are expanded", "[launch]") {
  using Names = std::vector<std::string>;
  CHECK(expand_node_list("node1") == Names{"node1"});
  CHECK(expand_node_list("node[1-3]") == Names{"node1", "node2", "node3"});
  CHECK(expand_node_list("gpu[01-03,7],login") == Names{"gpu01", "gpu02", "gpu03", "gpu7", "login"});
  CHECK(expand_node_list("r[1-2]n[09-10]x") == Names{"r1n09x", "r1n10x", "r2n09x", "r2n10x"});
  for (const char* wrong : {"", "a,,b", "n[", "n]", "n[]", "n[3-1]", "n[1-x]", "n[1-99999999999]"})
    CHECK(has(refusal([&] { expand_node_list(wrong); }), "is no list of nodes"));
  CHECK(expand_counts("2,1(x3)") == std::vector<int>{2, 1, 1, 1});
  for (const char* wrong : {"", "x", "2(x", "2(3)", "2(x3", "1(x99999999)"})
    CHECK(has(refusal([&] { expand_counts(wrong); }), "are no counts"));
}

TEST_CASE("an allocation's step goes before its job", "[launch]") {
  std::map<std::string, std::string> set{
      {"SLURM_JOB_ID", "7"}, {"SLURM_JOB_NODELIST", "n[1-3]"}, {"SLURM_TASKS_PER_NODE", "2(x2),1"}};
  const Environment env = [&](const char* name) { return set.contains(name) ? set.at(name) : ""; };
  CHECK(in_allocation(env));
  auto hosts = allocated_hosts(env);
  REQUIRE(hosts.size() == 3);
  CHECK((hosts[1].name == "n2" && hosts[1].slots == 2 && hosts[2].slots == 1));
  set["SLURM_STEP_NODELIST"] = "n3";
  set["SLURM_STEP_TASKS_PER_NODE"] = "4";
  hosts = allocated_hosts(env);
  CHECK((hosts.size() == 1 && hosts[0].name == "n3" && hosts[0].slots == 4));
  set["SLURM_STEP_TASKS_PER_NODE"] = "4,4";
  CHECK(has(refusal([&] { allocated_hosts(env); }), "Slurm names 1 nodes and tells the tasks of 2"));
  set = {{"SLURM_JOB_ID", "7"}};
  CHECK(has(refusal([&] { allocated_hosts(env); }), "SLURM_STEP_NODELIST isn't set"));
}

TEST_CASE("nodes fill one host after another, and the last hosts are spare", "[launch]") {
  const std::vector<HostLine> hosts{{"a", 2}, {"b", 1}, {"c", 2}};
  const Places all = choose_places(hosts, 0, 1);
  CHECK(all.places == std::vector<std::string>{"a", "a", "b"});
  CHECK(all.spares == std::vector<std::string>{"c", "c"});
  CHECK(choose_places(hosts, 4, 0).places == std::vector<std::string>{"a", "a", "b", "c"});
  CHECK(has(refusal([&] { choose_places(hosts, 4, 1); }), "4 processes are wanted, the hosts take 3"));
  CHECK(has(refusal([&] { choose_places(hosts, 1, 3); }), "none is left to compute"));
}

TEST_CASE("a process is told how many share its cores", "[launch]") {
  LaunchRequest request;
  request.places = {"a", "a", "b", "a"};
  const auto beside = [&](std::uint32_t node) { return Launch(request, {}).beside(node); };
  CHECK(beside(0) == 3);
  CHECK(beside(2) == 1);
  request.here = true;
  CHECK(beside(2) == 4);
  request = {.slurm = true,
             .here = false,
             .ssh = {},
             .program = {},
             .folder = {},
             .places = request.places,
             .spares = {},
             .threads = 8,
             .command = {}};
  CHECK(beside(0) == 1);  // srun gives each cores of its own
}

TEST_CASE("the batch script asks for what the configuration says, and ends in the launcher itself", "[launch]") {
  SlurmConfig slurm;
  slurm.partition = "main";
  slurm.time = "10:00";
  slurm.lines = {"#SBATCH --mem=0", "module load it's"};
  const std::string text = batch_script(slurm, {"tiny", 3, 2, "/runs/a b/slurm.log", {"/bin/troupe", "--out", "it's"}});
  for (const char* line : {"#!/bin/bash\n", "#SBATCH --nodes=3\n", "#SBATCH --ntasks-per-node=2\n", "--no-kill\n",
                           "#SBATCH --requeue\n", "#SBATCH --signal=B:USR1@120\n", "#SBATCH --partition=main\n",
                           "#SBATCH --time=10:00\n", "#SBATCH --mem=0\nmodule load it's\nexec "})
    CHECK(has(text, line));
  CHECK(!has(text, "--account"));
  CHECK(text.ends_with("exec /bin/troupe --out 'it'\\''s'\n"));
}

TEST_CASE("who knows the token and is awaited joins, everybody else is told why not", "[launch]") {
  Met met;
  met.rendezvous.await(1, 4);
  CHECK(has(met.joins({"", std::string(2 * kTokenBytes, 'b'), "", 1, 4}), "doesn't know the run's token"));
  CHECK(has(refusal([] { join_run({"127.0.0.1:1", kToken, "", 1, 4}); }), "127.0.0.1:1 doesn't answer"));
  CHECK(has(met.joins({"", kToken, "", 1, 3}), "nobody awaits life 3 of node 1"));
  CHECK(has(met.joins({"", kToken, "", 2, 4}), "nobody awaits life 4 of node 2"));
  CHECK(has(met.joins({"", kToken, TROUPE_SOURCE_DIR "/configs/tiny.toml", 1, 4}), "for another configuration"));
  CHECK(met.joins({"", kToken, "", 1, 4}).empty());
  CHECK(has(met.joins({"", kToken, "", 1, 4}), "nobody awaits life 4 of node 1"));  // it is there
}

TEST_CASE("a process of another build, and one that only pretends, are refused", "[launch]") {
  Met met;
  met.rendezvous.await(0, 1);
  const std::string address = met.rendezvous.addresses();
  const auto port = static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1)));
  const auto says = [&](const JoinRequest& request, const std::string& token) {
    ControlSocket socket(connect_here(port));
    socket.send(to_line(request));
    std::string last;
    bool open = true;
    for (int i = 0; i < 200 && open; ++i) {
      if (!met.rendezvous.look().empty()) return std::string("joined");
      open = socket.read();
      while (auto line = socket.next()) {
        last = *line;
        if (!has(last, "prove")) return last;
        const std::string words = last.substr(last.find("\"words\":\"") + 9, 64);
        socket.send(R"({"kind":"proof","proof":")" + proof_of(token, false, request, words) + "\"}");
      }
      ::usleep(1000);
    }
    return last;
  };
  JoinRequest request{kJoinProtocol, build_version(), random_words(), "", 0, 1};
  CHECK(has(says(request, std::string(64, 'c')), "doesn't know the run's token"));
  JoinRequest old = request;
  old.build = "troupe 0.0";
  CHECK(has(says(old, kToken), "it is of troupe 0.0"));
  old = request;
  old.protocol = 0;
  CHECK(has(says(old, kToken), "all nodes must run the same build"));
  CHECK(says(request, kToken) == "joined");
}

TEST_CASE("strangers who say nothing, or nonsense, or too much, keep nobody from joining", "[launch]") {
  Met met;
  met.rendezvous.await(0, 1);
  const std::string address = met.rendezvous.addresses();
  const auto port = static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1)));
  for (int i = 0; i < 200; ++i) {
    const ControlSocket stranger(connect_here(port));
    const std::string nonsense(static_cast<std::size_t>(i) * 37 % 9000, static_cast<char>(i));
    CHECK(::send(stranger.fd(), nonsense.data(), nonsense.size(), MSG_NOSIGNAL) >= 0);
    met.rendezvous.look();
  }
  std::vector<ControlSocket> idle;
  for (int i = 0; i < 40; ++i) idle.emplace_back(connect_here(port));
  CHECK(met.joins({"", kToken, "", 0, 1}).empty());
}

TEST_CASE("proofs are of one side, one token and one conversation", "[launch]") {
  const JoinRequest request{kJoinProtocol, "b", "w", "", 1, 2};
  const std::string proof = proof_of("t", true, request, "x");
  CHECK(proof.size() == 64);
  CHECK(proof != proof_of("t", false, request, "x"));
  CHECK(proof != proof_of("u", true, request, "x"));
  CHECK(proof != proof_of("t", true, request, "y"));
  JoinRequest other = request;
  other.incarnation = 3;
  CHECK(proof != proof_of("t", true, other, "x"));
}

TEST_CASE("on hosts a run has the bits that it has here, and says where its actors are", "[launch]") {
  const Folder folder;
  const Ended there = run(launch_command(folder, folder / "there", kTwo, "alpha\nbeta\n"));
  INFO(there.err);
  REQUIRE(there.code == 0);
  CHECK(has(there.out, "node 0 on alpha: loader 0, conductor 0"));
  CHECK(has(there.out, "node 1 on beta: "));
  CHECK(troupe::test::troupe(tiny_run(folder / "here", kTwo)).code == 0);
  CHECK(digest_of(folder / "there") == digest_of(folder / "here"));
}

TEST_CASE("of a process on a host that dies the run tells the host, and goes on with the same bits", "[launch]") {
  const Folder folder;
  const std::string there = folder / "there";
  const Arguments sets = kTwo + Arguments{"train.steps=150"};
  Process process(launch_command(folder, there, sets, "alpha\nbeta\n"), 60'000);
  REQUIRE(process.follow([&] { return metrics_of(there, "step").size() > 5; }));
  const std::string token = run_token(there);
  for (const pid_t pid : nodes_of(there))
    if (has(read_file(fmt::format("/proc/{}/cmdline", pid)), std::string("--node\0001", 8))) ::kill(pid, SIGKILL);
  const Ended ended = process.wait();
  INFO(ended.err);
  CHECK(ended.code == 0);
  CHECK(has(ended.err, "node 1 (beta) is lost"));
  CHECK(!has(ended.out + ended.err + read_file(there + "/logs/node-1.log"), token));
  CHECK(troupe::test::troupe(tiny_run(folder / "here", sets)).code == 0);
  CHECK(digest_of(there) == digest_of(folder / "here"));
}

TEST_CASE("a launcher that is killed outright leaves no process on any host", "[launch]") {
  const Folder folder;
  const std::string there = folder / "there";
  Process process(launch_command(folder, there, kTwo + Arguments{"train.steps=100000"}, "alpha\nbeta\n"), 60'000);
  REQUIRE(process.follow([&] { return metrics_of(there, "step").size() > 5; }));
  const auto nodes = [&] { return nodes_of(there); };
  REQUIRE(nodes().size() == 2);
  ::kill(process.pid(), SIGKILL);
  int tenths = 0;
  for (; tenths < 50 && !nodes().empty(); ++tenths) ::usleep(100'000);
  CHECK(tenths < 50);
  process.wait();
}

TEST_CASE("a host that doesn't see the checkpoint's folder is given its part of it", "[launch]") {
  const Folder folder;
  const auto resumed = [&](const std::string& hosts, const std::string& name) {
    const std::string out = name;  // from the working folder, which a host called far doesn't share
    Arguments first = launch_command(folder, out, kTwo + Arguments{"train.steps=6"}, "alpha\nbeta\n");
    Arguments second = launch_command(folder, out, kTwo + Arguments{"train.steps=12"}, hosts);
    second.push_back("--resume");
    const auto in_folder = [&](const Arguments& command) {
      Arguments all{"/usr/bin/env", "-C", folder / ""};
      all.insert(all.end(), command.begin(), command.end());
      return run(all);
    };
    CHECK(in_folder(first).code == 0);
    launch_command(folder, out, {}, hosts);  // the hosts file of the second
    const Ended ended = in_folder(second);
    INFO(ended.err);
    CHECK(ended.code == 0);
    CHECK(has(ended.out, "starting at step 6 from"));
    return digest_of(folder / out);
  };
  CHECK(resumed("alpha\nfar\n", "apart") == resumed("alpha\nbeta\n", "together"));
}

TEST_CASE("a host that can't be reached is named, with what was said", "[launch]") {
  const Folder folder;
  Arguments command = launch_command(folder, folder / "there", kTwo, "alpha\nbeta\n");
  command[8] = TROUPE_SOURCE_DIR "/tests/cluster/no_ssh";
  const Ended ended = run(command);
  CHECK(ended.code == 1);
  CHECK((has(ended.err, "node 0 (alpha)") || has(ended.err, "node 1 (beta)")));
  CHECK(has(ended.err, "no such program here"));
}
