// A simulated world from its beginning to its end, and the laws it must have kept.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "actors/checkpoint/manifest.h"
#include "actors/rules/placement.h"
#include "kernels/base/log.h"
#include "launcher/config.h"
#include "launcher/plan.h"
#include "launcher/simulation/begin.h"
#include "launcher/simulation/scenario.h"
#include "launcher/simulation/sim_corpus.h"
#include "launcher/stall.h"
#include "launcher/why.h"

namespace troupe {

namespace fs = std::filesystem;

namespace {

// Of a node: what the plan counts as its program, such as a batch of tokens, counters and what waits to be sent again.
constexpr std::size_t kSmallBytes = std::size_t{1} << 13;

constexpr std::int64_t kTimeLimitUs = 100'000'000, kStepLimitUs = 60'000'000;  // of a world that makes no end
constexpr std::int64_t kRestLimitUs = 60'000'000;                              // for the last acknowledgements
constexpr std::uint64_t kRoundsMax = 300'000;  // moments without a report: something goes round and round

// A folder that is gone with it.
struct Folder {
  explicit Folder(std::string name) : path(std::move(name)) {
    fs::remove_all(path);
    fs::create_directories(path + "/checkpoints");
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  Folder(const Folder&) = delete;
  std::string path;
};

// Lets the drawn losses happen, and recovers from them and from what fell by itself.
struct Fate {
  SimWorld& world;
  const Scenario& scenario;
  std::string folder;
  std::vector<NodeLoss> to_come;
  std::map<std::uint32_t, std::int64_t> decided{};  // the last step whose decision came to a node
  std::uint32_t attempt = 0;
  int happened = 0;
  std::set<std::uint32_t> coming_back{};
  bool is_ready = false;            // since the last start
  std::int64_t least_version = -1;  // to which the run may go back
  bool covered = false;             // every state had a copy on another node when the last loss came
  std::size_t heard = 0;            // reports
  std::int64_t saved = -1;          // the last version that was reported as saved
  std::uint64_t heard_in_round = 0;
  std::string broken{};

  void see(std::uint32_t node, const Envelope& envelope) {
    if (const auto* decision = std::get_if<Decision>(&envelope.message)) decided[node] = decision->step;
    for (NodeLoss& loss : to_come)
      if (loss.after_messages > 0 && (loss.kind.empty() || loss.kind == kind_of(envelope.message)))
        --loss.after_messages;
  }
  void look() {
    listen();
    std::int64_t back_after_us = 0;
    const auto due =
        std::find_if(to_come.begin(), to_come.end(), [](const NodeLoss& loss) { return loss.after_messages == 0; });
    if (due != to_come.end()) {
      const NodeLoss loss = *due;
      to_come.erase(due);
      back_after_us = loss.back_after_us;
      // A zombie that owns the run's folder is killed by its parent: two writers are nobody's to sort out.
      const bool runs_on = loss.abandoned && loss.node != 0;
      if (world.is_up(loss.node)) runs_on ? world.abandon(loss.node) : world.kill(loss.node);
    }
    for (std::uint32_t node = 0; node < nodes(); ++node) {
      if (world.is_up(node) || !coming_back.insert(node).second) continue;
      ++happened;
      covered = is_ready && coming_back.size() == 1 && nodes() > 1 && scenario.config.recovery.copies > 0;
      decided.erase(node);
      least_version = 0;
      for (const auto& [other, step] : decided)
        if (covered) least_version = std::max(least_version, step + 1);
      world.events().at(world.now_us() + back_after_us, [this, node] { bring_back(node); });
    }
  }
  // A decision that anybody saw stands, while every state has a copy.
  void listen() {
    for (; heard < world.reports().size(); ++heard) {
      const Report& report = world.reports()[heard];
      heard_in_round = world.rounds();
      if (report.kind == "checkpoint") listen_to_save(nlohmann::json::parse(report.json));
      if (report.kind != "ready") continue;
      const auto version = nlohmann::json::parse(report.json).at("version").get<std::int64_t>();
      if (version < least_version)
        broken = fmt::format("one node was lost, version {} was decided, and the run went back to version {}",
                             least_version, version);
      is_ready = true;
    }
  }
  void listen_to_save(const nlohmann::json& report) {
    if (report.at("problem") == "") saved = std::max(saved, report.at("version").get<std::int64_t>());
  }
  // The checkpoint from which everybody could go on: what was reported as saved is never lost.
  Recover newest(std::uint32_t number) {
    const Recover found = last_checkpoint(folder, number);
    if (found.version < saved && broken.empty())
      broken = fmt::format("version {} was reported as saved, and the last whole checkpoint has version {}", saved,
                           found.version);
    return found;
  }
  bool goes_round() const { return world.rounds() - heard_in_round > kRoundsMax; }
  // Whoever comes last begins again.
  void bring_back(std::uint32_t node) {
    world.restart(node);
    coming_back.erase(node);
    is_ready = false;
    if (!covered) decided.clear();
    if (coming_back.empty()) world.start(newest(++attempt));
  }
  std::uint32_t nodes() const { return static_cast<std::uint32_t>(scenario.config.layout.nodes); }
};

// No silent wait: every wait has a holder, and while a world goes on no stall is told.
class Watcher {
 public:
  explicit Watcher(const Config& config)
      : config_(config), places_(place_actors(config)), rule_(std::int64_t{1'000'000} * config.limits.stall_seconds) {}
  void look(const SimWorld& world) {
    if (world.now_us() - looked_us_ < kWatchUs || !broken.empty()) return;
    looked_us_ = world.now_us();
    const std::vector<BoardPage> pages = world.pages();
    if (rule_.look(looked_us_, pages))
      broken = "a stall was told: " + explain(config_, pages, {looked_us_, "troupe train"}).text();
    for (const BoardPage& page : pages)
      for (const BoardPage::Actor& actor : page.actors)
        for (const Wait& wait : actor.waits)
          if (wait.holder.role != Role::supervisor && !places_.contains(wait.holder))
            broken = fmt::format("{} waits for {} from {}, who is nobody", to_string(actor.address),
                                 to_string(wait.what), to_string(wait.holder));
  }
  std::string broken{};

 private:
  static constexpr std::int64_t kWatchUs = 1'000'000;
  const Config& config_;
  std::map<Address, std::uint32_t> places_;
  StallRule rule_;
  std::int64_t looked_us_ = 0;
};

void print(std::int64_t now_us, std::uint32_t node, const Envelope& envelope) {
  std::string work;
  std::visit(
      [&](const auto& message) {
        if constexpr (requires { message.key.microbatch; }) work = to_string(message.key);
        if constexpr (requires { message.attempt; }) work = fmt::format("attempt {}", message.attempt);
      },
      envelope.message);
  fmt::print("{:>12} us  node {}  {} -> {}  {}  {}\n", now_us, node, to_string(envelope.from), to_string(envelope.to),
             kind_of(envelope.message), work);
}

std::string first_broken(const SimWorld& world, const Ledger& ledger, const Curve& curve) {
  if (!world.problem().empty()) return "it reported a problem: " + world.problem();
  if (!ledger.broken().empty()) return ledger.broken();
  return curve.broken;
}

// Every node kept to the memory that the plan shows before a run begins.
std::string over_plan(const SimWorld& world, const Config& config) {
  const Plan plan = make_plan(config, 0);
  for (const auto& [node, held] : world.bytes_peak()) {
    const NodePlan& planned = plan.nodes.at(node);
    const auto over = [&, at = node](const char* what, std::size_t bytes, std::size_t most) {
      return bytes <= most + kSmallBytes
                 ? ""
                 : fmt::format("node {} held {} bytes{}, and the plan has {}", at, bytes, what, most);
    };
    std::string broken = over(" of device memory", held.device, planned.device);
    if (broken.empty()) broken = over("", held.device + held.shared, planned.actors + planned.messages);
    if (!broken.empty()) return broken;
  }
  return "";
}

// No checkpoint because the disk was full: that was reported, and all that is there is whole.
bool disk_was_full(const SimWorld& world, const Scenario& scenario) {
  if (scenario.world.disk.written_max == 0) return false;
  return std::any_of(world.reports().begin(), world.reports().end(), [](const Report& report) {
    return report.kind == "checkpoint" && report.json.find("disk is full") != std::string::npos;
  });
}

}  // namespace

Simulator::Simulator(std::string scratch, bool trace) : scratch_(std::move(scratch)), trace_(trace) {
  fs::create_directories(scratch_);
  start_log("simulate", scratch_ + "/errors.log", LogLevel::error);
}

Simulator::~Simulator() {
  start_log("simulate", "", LogLevel::warning);
  std::error_code ignored;
  fs::remove_all(scratch_, ignored);
}

// The first line since the last call.
std::string Simulator::logged_error() {
  std::ifstream file(scratch_ + "/errors.log");
  std::string first;
  std::uint64_t number = 0;
  for (std::string line; std::getline(file, line);)
    if (number++ >= error_lines_ && first.empty()) first = line;
  error_lines_ = number;
  return first;
}

void Simulator::play(const Scenario& scenario, const std::string& folder, bool trace, WorldResult& result) {
  SimWorldOptions options = scenario.world;
  options.run_folder = folder;
  options.corpus = corpus_of(scenario.config);
  const std::shared_ptr<const Corpus> corpus = options.corpus;
  Ledger ledger(scenario.config, corpus.get());
  Fate* fates = nullptr;
  SimWorld world(scenario.config, std::move(options),
                 [&](std::int64_t now_us, std::uint32_t node, const Envelope& envelope) {
                   ledger.see(envelope);
                   if (fates != nullptr) fates->see(node, envelope);
                   if (trace) print(now_us, node, envelope);
                 });
  Fate fate{world, scenario, folder, scenario.losses};
  fate.saved = result.saved;
  fates = &fate;
  world.start(fate.newest(0));
  const auto falls = [&] { return scenario.sequel && world.messages() >= scenario.falls_after_messages; };
  Watcher watch(scenario.config);
  const auto over = [&] {
    fate.look();
    watch.look(world);
    return world.finished() || falls() || fate.goes_round() || !fate.broken.empty() || !world.problem().empty() ||
           !ledger.broken().empty() || !watch.broken.empty();
  };
  const std::int64_t limit_us = kTimeLimitUs + scenario.config.train.steps * kStepLimitUs;
  const bool in_time = world.run_until(over, limit_us) && !fate.goes_round();
  result.fell = falls() && !world.finished();
  result.virtual_us += world.now_us();
  const bool at_rest = result.fell || (in_time && world.settle(world.now_us() + kRestLimitUs));
  read_curve(result.curve, world.reports());
  result.broken = fate.broken.empty() ? first_broken(world, ledger, result.curve) : fate.broken;
  if (result.broken.empty()) result.broken = watch.broken;
  if (result.broken.empty() && !at_rest)
    result.broken = fmt::format("{}; owed: {}", in_time ? "it comes to no rest" : "it made no end",
                                world.owed().empty() ? "nothing" : world.owed());
  if (result.broken.empty()) result.broken = broken_by(world.bill());
  if (result.broken.empty()) result.broken = over_plan(world, scenario.config);
  const std::string error = logged_error();
  if (result.broken.empty() && !error.empty()) result.broken = "an error was logged: " + error;
  result.messages += world.messages();
  result.segments += world.segments();
  result.hash ^= world.log_hash();
  result.losses += fate.happened;
  result.saved = fate.saved;
  result.disk_full |= disk_was_full(world, scenario);
  for (std::uint32_t node = 0; result.fell && node < fate.nodes(); ++node)
    if (world.is_up(node)) world.kill(node);
}

const Undisturbed& Simulator::undisturbed(const Scenario& scenario) {
  const std::string name = fmt::format("{} {}", numbers_digest(scenario.config), scenario.config.train.steps);
  const auto known = undisturbed_.find(name);
  if (known != undisturbed_.end()) return known->second;
  Scenario plain;
  plain.config = scenario.config;
  plain.config.layout = {};
  plain.config.device.threads = 1;
  plain.config.train.recompute = false;
  plain.config.evaluate.every_steps = 1;
  plain.config.checkpoint = {};
  plain.config.checkpoint.every_steps = 1;
  plain.config.checkpoint.keep_last = plain.config.train.steps;
  plain.world.devices.resize(1);
  plain.world.disk.job_us = 0;  // every version is saved before the next
  plain.world.disk.bytes_per_us = 1e9;
  const Folder folder(scratch_ + "/undisturbed");
  WorldResult result;
  play(plain, folder.path, false, result);
  CHECK(result.broken.empty(), "the undisturbed world of seed {}: {}", scenario.seed, result.broken);
  Undisturbed outcome{
      std::move(result.curve), weights_digest(resolve_checkpoint(folder.path)), {}, rollouts_of(folder.path)};
  for (const CheckpointEntry& one : list_checkpoints(folder.path)) outcome.states[one.version] = state_digest(one.path);
  return undisturbed_[name] = std::move(outcome);
}

WorldResult Simulator::run(const Scenario& scenario) {
  const Folder folder(scratch_ + "/world");
  WorldResult result;
  play(scenario, folder.path, trace_, result);
  if (const bool fell = result.fell; result.broken.empty() && fell) {
    play(*scenario.sequel, folder.path, trace_, result);
    result.fell = fell;
  }
  if (result.broken.empty()) result.broken = judge(scenario, folder.path, result);
  return result;
}

// What a run that came to its end leaves behind.
std::string Simulator::judge(const Scenario& scenario, const std::string& folder, WorldResult& result) {
  const auto steps = static_cast<std::size_t>(scenario.config.train.steps);
  if (result.curve.steps.size() != steps)
    return fmt::format("{} of {} steps were committed", result.curve.steps.size(), steps);
  for (const CheckpointEntry& one : list_checkpoints(folder)) {
    const std::string problem = verify_checkpoint(one.path, true);
    const bool may_be_torn = result.fell || result.losses > 0;
    if (!problem.empty() && !may_be_torn) return fmt::format("{}: {}", one.path, problem);
    if (!problem.empty()) continue;
    const Undisturbed* const reference = scenario.numbers ? &undisturbed(scenario) : nullptr;
    if (std::string wrong = checkpoint_problem(one.path, one.version, reference); !wrong.empty()) return wrong;
  }
  if (scenario.config.has_rollouts())
    if (std::string wrong = rollout_problem(rollouts_of(folder), undisturbed(scenario).rollouts); !wrong.empty())
      return wrong;
  const Recover last = last_checkpoint(folder, 0);
  if (last.version != scenario.config.train.steps && !result.disk_full) return "the last step is in no checkpoint";
  if (!scenario.numbers) return "";
  if (!result.disk_full) result.digest = weights_digest(last.path);
  return difference(undisturbed(scenario), result.curve, result.digest);
}

}  // namespace troupe
