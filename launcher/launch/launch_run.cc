#include "launcher/launch/launch_run.h"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>

#include "actors/rules/placement.h"
#include "kernels/base/error.h"
#include "launcher/config.h"
#include "launcher/interrupts.h"
#include "launcher/launch/slurm.h"
#include "launcher/machine.h"
#include "launcher/program.h"
#include "launcher/whole_file.h"

namespace troupe {

namespace fs = std::filesystem;

namespace {

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

std::string own_program() { return fs::read_symlink("/proc/self/exe").string(); }

// A program that is run and waited for; its exit code.
int run_program(const std::vector<std::string>& words) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const pid_t pid = fork();
  if (pid < 0) throw Error("can't start {}: the process limit is reached", words[0]);
  if (pid == 0) {
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

// Hosts are taken for alike, and like this one.
int threads_of_each(const LaunchRequest& request) {
  std::map<std::string, int> processes;
  int most = 1;
  for (const std::string& place : request.places) most = std::max(most, ++processes[place]);
  const std::string told = request.slurm ? environment("SLURM_CPUS_ON_NODE") : "";
  const int cores = told.empty() ? usable_cores() : std::atoi(told.c_str());
  return std::max(1, cores / most);
}

// The same command for elsewhere: in a batch script, or to continue.
std::vector<std::string> command_again(const LaunchRun& options, const std::string& out) {
  std::vector<std::string> words{own_program(), "launch", fs::absolute(options.train.config_path).string()};
  const auto add = [&](const char* name, const std::string& value) { words.insert(words.end(), {name, value}); };
  const OnWhat on = parse_on(options.on);
  add("--on", on.kind == OnWhat::Kind::hosts ? "hosts:" + fs::absolute(on.file).string() : options.on);
  add("--out", out);
  if (options.nodes > 0) add("--nodes", std::to_string(options.nodes));
  if (options.spares > 0) add("--spares", std::to_string(options.spares));
  if (options.ssh != LaunchRun().ssh) add("--ssh", options.ssh);
  if (!options.program.empty()) add("--program", options.program);
  if (!options.interface.empty()) add("--interface", options.interface);
  for (const std::string& set : options.train.sets) add("--set", set);
  words.push_back("--resume");
  return words;
}

std::string run_name(const LaunchRun& options) {
  const std::string name = load_recipe(options.train.config_path, options.train.sets).name;
  return fs::absolute(options.train.out.empty() ? "runs/" + name : options.train.out).string();
}

int launch_there(const LaunchRun& options, const std::vector<HostLine>& hosts, bool slurm) {
  auto request = std::make_shared<LaunchRequest>(launch_request(options, hosts, slurm));
  TrainOptions train_options = options.train;
  const Config config = load_recipe(options.train.config_path, options.train.sets).phases[0];
  request->threads = config.device.threads > 0 ? config.device.threads : threads_of_each(*request);
  train_options.sets.push_back(fmt::format("device.threads={}", request->threads));
  for (const std::string& word : command_again(options, run_name(options)))
    request->command += (request->command.empty() ? "" : " ") + shell_quoted(word);
  // Shared memory is for processes of one machine.
  if (config.layout.transport == "auto" && on_several(*request)) train_options.sets.push_back("layout.transport=any");
  train_options.sets.push_back(fmt::format("layout.nodes={}", request->places.size()));
  if (!options.interface.empty()) train_options.sets.push_back("layout.interface=" + options.interface);
  train_options.launch = request;
  return train(train_options);
}

int submit(const LaunchRun& options) {
  const Recipe recipe = load_recipe(options.train.config_path, options.train.sets);
  const Config& config = recipe.phases[0];
  const std::string out = run_name(options);
  const int processes = options.nodes > 0 ? options.nodes : config.layout.nodes, each = config.slurm.processes_per_node;
  std::vector<std::string> sets = options.train.sets;
  sets.push_back(fmt::format("layout.nodes={}", processes));
  load_recipe(options.train.config_path, sets);  // what the job would refuse is refused here
  const std::string text = batch_script(config.slurm, {recipe.name, (processes + each - 1) / each + options.spares,
                                                       each, out + "/slurm.log", command_again(options, out)});
  if (options.dry_run) {
    std::fputs(text.c_str(), stdout);
    return 0;
  }
  fs::create_directories(out);
  const std::string path = out + "/slurm.sh";
  write_whole_file(path, text);
  const int code = run_program({"sbatch", path});
  if (code == 127) throw Error("there is no sbatch here; are Slurm's programs on the PATH? --dry-run shows the script");
  if (code != 0) throw Error("sbatch refused {} (code {}): see above", path, code);
  std::printf("its log will be %s/slurm.log; look at it with: troupe inspect %s\n", out.c_str(), out.c_str());
  return 0;
}

int launch_slurm(const LaunchRun& options) {
  if (!in_allocation(environment)) return submit(options);
  catch_time_signal();
  LaunchRun inside = options;  // a job that is queued again goes on; the first time there is nothing to go on from
  inside.train.resume = options.train.resume && fs::exists(options.train.out + "/config.toml");
  const int code = launch_there(inside, hosts_on(parse_on("slurm")), true);
  if (!time_is_up() || code != kInterrupted) return code;
  const std::string job = environment("SLURM_JOB_ID");
  std::fprintf(stderr, "the job's time is up: it is queued again, and goes on from here\n");
  return run_program({"scontrol", "requeue", job}) == 0 ? 0 : code;
}

}  // namespace

Places choose_places(const std::vector<HostLine>& hosts, int nodes, int spares) {
  Places chosen;
  if (spares >= static_cast<int>(hosts.size()))
    throw Error("{} spare hosts of {}: none is left to compute", spares, hosts.size());
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    auto& list = i + static_cast<std::size_t>(spares) < hosts.size() ? chosen.places : chosen.spares;
    list.insert(list.end(), static_cast<std::size_t>(hosts[i].slots), hosts[i].name);
  }
  if (nodes == 0) return chosen;
  if (static_cast<std::size_t>(nodes) > chosen.places.size())
    throw Error("{} processes are wanted, the hosts take {}; name more hosts, or more slots", nodes,
                chosen.places.size());
  chosen.places.resize(static_cast<std::size_t>(nodes));
  return chosen;
}

std::string placement_text(const Config& config, const std::vector<std::string>& places) {
  std::map<std::uint32_t, std::string> actors;
  for (const auto& [address, node] : place_actors(config)) {
    std::string& text = actors[node];
    text += (text.empty() ? "" : ", ") + to_string(address);
  }
  std::string text;
  for (const auto& [node, names] : actors)
    text += fmt::format("node {} on {}: {}\n", node, node < places.size() ? places[node] : "this machine", names);
  return text;
}

LaunchRequest launch_request(const LaunchRun& options, const std::vector<HostLine>& hosts, bool slurm) {
  LaunchRequest request;
  const Places places = choose_places(hosts, options.nodes, options.spares);
  request.places = places.places;
  request.spares = places.spares;
  request.slurm = slurm;
  request.ssh = words_of(options.ssh);
  if (request.ssh.empty()) throw Error("--ssh names no command");
  request.program = options.program.empty() ? own_program() : options.program;
  request.folder = fs::current_path().string();
  return request;
}

bool on_several(const LaunchRequest& request) {
  std::set<std::string> hosts(request.places.begin(), request.places.end());
  hosts.insert(request.spares.begin(), request.spares.end());
  return hosts.size() > 1;
}

std::vector<HostLine> hosts_on(const OnWhat& on) {
  if (on.kind == OnWhat::Kind::slurm) return allocated_hosts(environment);
  if (!fs::is_regular_file(on.file))
    throw Error("{}: no such file; a hosts file has a host's name on every line", on.file);
  return parse_hosts(read_whole_file(on.file), on.file);
}

int launch(const LaunchRun& options) {
  const OnWhat on = parse_on(options.on);
  if (options.dry_run && (on.kind != OnWhat::Kind::slurm || in_allocation(environment)))
    throw Error("--dry-run shows a batch script: only with --on slurm, outside of an allocation");
  if (on.kind == OnWhat::Kind::slurm) return launch_slurm(options);
  if (on.kind == OnWhat::Kind::hosts) return launch_there(options, hosts_on(on), false);
  TrainOptions here = options.train;
  const int nodes = options.nodes > 0 ? options.nodes : on.processes;
  if (nodes > 0) here.sets.push_back(fmt::format("layout.nodes={}", nodes));
  here.tells_places = true;
  return train(here);
}

}  // namespace troupe
