// A simulated world from its beginning to its end, and the laws it must have kept.
#include <filesystem>
#include <fstream>
#include <set>

#include "actors/checkpoint/manifest.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "launcher/config.h"
#include "launcher/simulation/scenario.h"
#include "launcher/simulation/sim_corpus.h"

namespace troupe {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kTimeLimitUs = 400'000'000;  // of a world that makes no end
constexpr std::int64_t kRestLimitUs = 60'000'000;   // for the last acknowledgements
constexpr std::int64_t kDetectUs = 20'000;          // from a death to the supervisor's knowing

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

std::shared_ptr<const Corpus> corpus_of(const Config& config) {
  if (config.data.kind == "none") return make_sim_corpus(config);
  return open_corpus(config);
}

// As the launcher begins again: from the newest checkpoint that is whole.
Restore last_checkpoint(const std::string& folder, std::uint32_t attempt) {
  Restore begin;
  begin.attempt = attempt;
  auto all = list_checkpoints(folder);
  while (!all.empty() && !verify_checkpoint(all.back().path, true).empty()) all.pop_back();
  if (all.empty()) return begin;
  begin.version = all.back().version;
  begin.path = all.back().path;
  return begin;
}

// Lets the drawn losses happen, and recovers from them and from what fell by itself.
struct Fate {
  SimWorld& world;
  const Scenario& scenario;
  std::string folder;
  std::size_t next = 0;
  std::uint32_t attempt = 0;
  int happened = 0;
  std::set<std::uint32_t> coming_back{};

  void look() {
    std::int64_t back_after_us = 0;
    if (next < scenario.losses.size() && world.messages() >= scenario.losses[next].after_messages) {
      const NodeLoss loss = scenario.losses[next++];
      back_after_us = loss.back_after_us;
      // A zombie that owns the run's folder is killed by its parent: two writers are nobody's to sort out.
      if (world.is_up(loss.node)) loss.abandoned&& loss.node != 0 ? world.abandon(loss.node) : world.kill(loss.node);
    }
    for (std::uint32_t node = 0; node < nodes(); ++node) {
      if (world.is_up(node) || !coming_back.insert(node).second) continue;
      ++happened;
      world.events().at(world.now_us() + kDetectUs + back_after_us, [this, node] { bring_back(node); });
    }
  }
  // Whoever comes last begins again.
  void bring_back(std::uint32_t node) {
    world.restart(node);
    coming_back.erase(node);
    if (coming_back.empty()) world.start(last_checkpoint(folder, ++attempt));
  }
  std::uint32_t nodes() const { return static_cast<std::uint32_t>(scenario.config.layout.nodes); }
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

std::string first_broken(const SimWorld& world, const Ledger& ledger, const Curve& curve, bool in_time, bool at_rest) {
  if (!world.problem().empty()) return "it reported a problem: " + world.problem();
  if (!ledger.broken().empty()) return ledger.broken();
  if (!in_time) return "it made no end; owed: " + (world.owed().empty() ? "nothing" : world.owed());
  if (!curve.broken.empty()) return curve.broken;
  if (!at_rest) return "at rest something is owed: " + world.owed();
  return "";
}

}  // namespace

Simulator::Simulator(std::string scratch, bool trace) : scratch_(std::move(scratch)), trace_(trace) {
  fs::create_directories(scratch_);
  start_log("simulate", scratch_ + "/errors.log", LogLevel::error);
}

Simulator::~Simulator() {
  start_log("simulate", "", LogLevel::info);
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

WorldResult Simulator::play(const Scenario& scenario, const std::string& folder, bool trace) {
  SimWorldOptions options = scenario.world;
  options.run_folder = folder;
  options.corpus = corpus_of(scenario.config);
  const std::shared_ptr<const Corpus> corpus = options.corpus;
  Ledger ledger(scenario.config, *corpus);
  SimWorld world(scenario.config, std::move(options),
                 [&](std::int64_t now_us, std::uint32_t node, const Envelope& envelope) {
                   ledger.see(envelope);
                   if (trace) print(now_us, node, envelope);
                 });
  Fate fate{world, scenario, folder};
  world.start({});
  const auto over = [&] {
    fate.look();
    return world.finished() || !world.problem().empty() || !ledger.broken().empty();
  };
  const bool in_time = world.run_until(over, kTimeLimitUs);
  WorldResult result;
  result.virtual_us = world.now_us();
  const bool at_rest = in_time && world.settle(world.now_us() + kRestLimitUs);
  result.curve = read_curve(world.reports(), scenario.config.train.steps);
  result.broken = first_broken(world, ledger, result.curve, in_time, at_rest);
  const std::string error = logged_error();
  if (result.broken.empty() && !error.empty()) result.broken = "an error was logged: " + error;
  result.messages = world.messages();
  result.segments = world.segments();
  result.hash = world.log_hash();
  result.losses = fate.happened;
  return result;
}

const Undisturbed& Simulator::undisturbed(const Scenario& scenario) {
  const std::string name = fmt::format("{} {}", numbers_digest(scenario.config), scenario.config.train.steps);
  const auto known = undisturbed_.find(name);
  if (known != undisturbed_.end()) return known->second;
  Scenario plain;
  plain.config = scenario.config;
  plain.config.layout = {};
  plain.config.train.recompute = false;
  plain.config.evaluate.every_steps = 1;
  plain.config.checkpoint = {};
  plain.world.devices.resize(1);
  const Folder folder(scratch_ + "/undisturbed");
  WorldResult result = play(plain, folder.path, false);
  CHECK(result.broken.empty(), "the undisturbed world of seed {}: {}", scenario.seed, result.broken);
  return undisturbed_[name] = {std::move(result.curve), weights_digest(resolve_checkpoint(folder.path))};
}

WorldResult Simulator::run(const Scenario& scenario) {
  const Folder folder(scratch_ + "/world");
  WorldResult result = play(scenario, folder.path, trace_);
  if (!result.broken.empty() || !scenario.numbers) return result;
  const Undisturbed& reference = undisturbed(scenario);
  try {
    const std::string last = resolve_checkpoint(folder.path);
    result.broken = verify_checkpoint(last, true);
    result.digest = weights_digest(last);
    if (result.broken.empty()) result.broken = difference(reference, result.curve, result.digest);
  } catch (const Error& error) {
    result.broken = fmt::format("its last checkpoint can't be read: {}", error.what());
  }
  return result;
}

}  // namespace troupe
