#include "launcher/inspect/simulated_world.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>

#include "kernels/base/check_handler.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "kernels/model/parameters.h"
#include "launcher/config.h"
#include "launcher/inspect/run_token.h"
#include "launcher/loop.h"
#include "launcher/machine.h"
#include "launcher/simulation/begin.h"

namespace troupe {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kQuietUs = 60'000'000;      // without a message for so long the world is at its end
constexpr std::int64_t kBackAfterUs = 500'000;     // a killed node's successor
constexpr std::int64_t kWorkUs = 1'000'000;        // of real time, for one order
constexpr std::size_t kRecords = 1 << 17;          // of each node's journal
constexpr std::uint64_t kTrafficRecords = 20'000;  // of each, looked at for rates
constexpr std::size_t kInFlightShown = 50;
constexpr std::int64_t kNumbersMax = 4'000'000;  // parameters; a larger model has time, and no numbers

// Thrown where a CHECK fails in the world: it ends, and the program doesn't.
struct WorldBroken {
  std::string sentence;
};

// Several may be in one process.
std::string own_folder() {
  static std::atomic<int> number = 0;
  return (fs::temp_directory_path() / fmt::format("troupe-inspect-{}-{}", ::getpid(), number++)).string();
}

Config load(const SimulatedOptions& options) {
  Config config = load_config(options.config_path, options.sets);
  config.device.kind = "cpu";
  resolve_machine(config);
  return config;
}

bool has_numbers(const Config& config) {
  std::int64_t all = 0;
  for (const Parameter& p : model_parameters(config.model)) all += p.elements();
  return all <= kNumbersMax;
}

SimWorldOptions options_of(const Config& config, const SimulatedOptions& from, const std::string& folder) {
  SimWorldOptions options;
  options.seed = from.seed;
  options.run_folder = folder;
  options.corpus = corpus_of(config);
  options.network.seed = from.seed;
  options.network.jitter_us = 10;
  options.journal_records = kRecords;
  SimDeviceOptions device;
  device.servers = config.device.threads;
  device.flops_per_us = config.peak_gflops() * 1e3;
  device.bytes_per_us = config.hardware.memory_gbytes_per_second * 1e3;
  device.numbers = has_numbers(config);
  device.seed = from.seed;
  options.devices.assign(static_cast<std::size_t>(config.layout.nodes), device);
  return options;
}

}  // namespace

SimulatedWorld::SimulatedWorld(const SimulatedOptions& options)
    : folder_(own_folder()),
      config_(load(options)),
      plan_(make_plan(config_, 0)),
      options_(options),
      metrics_(folder_ + "/metrics.jsonl") {
  start_log("inspect", "", LogLevel::error);
  set_check_handler([](const std::string& sentence) { throw WorldBroken{sentence}; });
  thread_.run([this] { begin(); });
  token_ = run_token(folder_);
}

SimulatedWorld::~SimulatedWorld() {
  thread_.run([this] { world_.reset(); });
  set_check_handler({});
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

void SimulatedWorld::begin() {
  world_.reset();
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
  fs::create_directories(folder_ + "/checkpoints");
  handled_ = reports_written_ = attempt_ = 0;
  in_flight_.clear();
  struck_.clear();
  last_.reset();
  broken_ = tainted_ = "";
  before_.reset();
  SimWorldOptions options = options_of(config_, options_, folder_);
  options.posted = [this](const Envelope& envelope) {
    if (envelope.to.role != Role::supervisor) in_flight_[envelope.id] = envelope;
  };
  options.loses = [this](const Envelope& envelope) {
    const auto strike = struck_.find(envelope.id);
    return strike != struck_.end() && strike->second == 0 && envelope.id != 0;
  };
  options.delays = [this](const Envelope& envelope) {
    const auto strike = struck_.find(envelope.id);
    const bool waits = strike != struck_.end() && strike->second > 0 && envelope.id != 0;
    return waits ? std::exchange(strike->second, -1) : 0;
  };
  world_ = std::make_unique<SimWorld>(config_, std::move(options),
                                      [this](std::int64_t, std::uint32_t, const Envelope& envelope) {
                                        in_flight_.erase(envelope.id);
                                        last_ = envelope;
                                      });
  world_->start({});
}

// ---- Going on -------------------------------------------------------------------------------------------------------

// One message. What was done at this moment the last time is done again.
bool SimulatedWorld::advance() {
  if (!broken_.empty() || (world_->finished() && world_->owed().empty())) return false;
  try {
    if (!world_->advance(world_->now_us() + kQuietUs)) return false;
  } catch (const WorldBroken& broken) {
    broken_ = broken.sentence;
    return false;
  }
  ++handled_;
  for (const Deed& deed : deeds_)
    if (deed.at == handled_) obey(deed);
  return true;
}

void SimulatedWorld::replay(std::uint64_t messages) {
  begin();
  for (const Deed& deed : deeds_)
    if (deed.at == 0) obey(deed);
  while (handled_ < messages && advance()) {
  }
  std::erase_if(deeds_, [&](const Deed& deed) { return deed.at > messages; });
}

bool SimulatedWorld::is_reached(const Control& control, const Envelope& seen) const {
  if (control.receiver && seen.to == *control.receiver &&
      (control.receives.empty() || control.receives == kind_of(seen.message)))
    return true;
  if (control.until_seconds && static_cast<double>(world_->now_us()) * 1e-6 >= *control.until_seconds) return true;
  if (!control.until_step) return false;
  const std::vector<Report>& reports = world_->reports();
  const auto at = std::find_if(reports.rbegin(), reports.rend(), [](const Report& r) { return r.kind == "step"; });
  return at != reports.rend() &&
         nlohmann::json::parse(at->json).at("step").get<std::int64_t>() + 1 >= *control.until_step;
}

std::string SimulatedWorld::run(const Control& control) {
  const bool to_condition = control.until_step || control.until_seconds || control.receiver;
  const std::int64_t begin_us = monotonic_us();
  const std::uint64_t from = handled_;
  while (to_condition || handled_ - from < control.messages) {
    last_.reset();
    if (!advance()) {
      if (!broken_.empty()) return fmt::format("after {} messages the world broke: {}", handled_ - from, broken_);
      return fmt::format("after {} messages nothing more happens: the run is over", handled_ - from);
    }
    if (to_condition && last_ && is_reached(control, *last_)) break;
    if (monotonic_us() - begin_us > kWorkUs && (to_condition || handled_ - from < control.messages))
      return fmt::format("{} messages were handled in a second, and it is not there yet: ask again", handled_ - from);
  }
  return fmt::format("{} message{} handled, at {:.6f} s of the world", handled_ - from, handled_ - from == 1 ? "" : "s",
                     static_cast<double>(world_->now_us()) * 1e-6);
}

// ---- Deeds ----------------------------------------------------------------------------------------------------------

void SimulatedWorld::lose(std::uint32_t node) {
  if (!world_->is_up(node)) throw Error("node {} is down already", node);
  world_->kill(node);
  world_->events().at(world_->now_us() + kBackAfterUs, [this, node] { bring_back(node); });
}

// As the supervisor does: whoever comes last begins again.
void SimulatedWorld::bring_back(std::uint32_t node) {
  if (world_->is_up(node)) return;
  world_->restart(node);
  for (std::uint32_t other = 0; other < static_cast<std::uint32_t>(config_.layout.nodes); ++other)
    if (!world_->is_up(other)) return;
  world_->start(last_checkpoint(folder_, ++attempt_));
}

void SimulatedWorld::obey(const Deed& deed) {
  const Control& control = deed.control;
  if (control.what == Control::Do::kill) return lose(control.node);
  if (control.what == Control::Do::restart) return bring_back(control.node);
  const auto message = in_flight_.find(control.id);
  if (message == in_flight_.end()) throw Error("message {} is not under way", control.id);
  const std::string what = fmt::format("{} to {}", kind_of(message->second.message), to_string(message->second.to));
  if (control.what == Control::Do::drop) struck_[control.id] = 0;
  if (control.what == Control::Do::delay)
    struck_[control.id] = std::max<std::int64_t>(1, std::llround(control.delay_seconds * 1e6));
  if (control.what == Control::Do::inject) {
    Envelope copy = message->second;
    copy.id = 0;
    if (!world_->deliver(copy)) throw Error("{} is down", to_string(copy.to));
  }
  if (control.what == Control::Do::drop) in_flight_.erase(message);
  tainted_ = fmt::format("{}: {}", what,
                         control.what == Control::Do::drop    ? "dropped"
                         : control.what == Control::Do::delay ? "held up"
                                                              : "repeated");
}

std::string SimulatedWorld::strike(const Control& control) {
  const Deed deed{handled_, control};
  obey(deed);
  deeds_.push_back(deed);
  switch (control.what) {
    case Control::Do::kill:
      return fmt::format("node {} is dead; its successor comes in {} ms", control.node, kBackAfterUs / 1000);
    case Control::Do::restart:
      return fmt::format("node {} is back", control.node);
    default:
      return tainted_;
  }
}

std::string SimulatedWorld::control(const Control& control) {
  return thread_.run([&] { return control_now(control); });
}

std::string SimulatedWorld::control_now(const Control& control) {
  switch (control.what) {
    case Control::Do::step:
    case Control::Do::run:
      return run(control);
    case Control::Do::back: {
      const std::uint64_t target = handled_ - std::min(handled_, control.messages);
      replay(target);
      return fmt::format("back at message {}, {:.6f} s of the world", handled_,
                         static_cast<double>(world_->now_us()) * 1e-6);
    }
    case Control::Do::pause:
    case Control::Do::resume:
      throw Error("a simulated world stands still but when it is told to go on");
    default:
      break;
  }
  if (!broken_.empty()) throw Error("the world is broken ({}): go back", broken_);
  try {
    return strike(control);
  } catch (const WorldBroken& broken) {
    broken_ = broken.sentence;
    throw Error("the world broke: {}", broken_);
  }
}

// ---- Looking --------------------------------------------------------------------------------------------------------

void SimulatedWorld::write_metrics() {
  const std::vector<Report>& reports = world_->reports();
  if (reports_written_ == reports.size()) return;
  std::ofstream file(folder_ + "/metrics.jsonl", std::ios::app);
  for (; reports_written_ < reports.size(); ++reports_written_) file << reports[reports_written_].json << '\n';
  file << world_->bill().dump() << '\n';
}

View SimulatedWorld::look() {
  return thread_.run([this] { return look_now(); });
}

View SimulatedWorld::look_now() {
  if (broken_.empty()) world_->show();
  write_metrics();
  Observed now;
  now.now_us = world_->now_us();
  now.pages = world_->pages();
  now.traffic = traffic_of(world_->journals(kTrafficRecords), now.now_us - kTrafficUs);
  ViewOptions options{.run = options_.config_path,
                      .source = RunSource::simulated,
                      .can_control = true,
                      .resume = "troupe inspect --simulate"};
  View view = make_view(config_, plan_, now, before_ ? &*before_ : nullptr, metrics_.look(), options);
  view.name += fmt::format(", seed {}", options_.seed);
  view.tainted = tainted_;
  if (!broken_.empty()) {
    view.healthy = false;
    view.why = {{}, {}, "the world broke: " + broken_, RootKind::lost, 0};
  }
  if (handled_ == 0) {
    view.healthy = true;
    view.why = {{}, {}, "the world stands at its beginning", RootKind::working, 0};
  }
  view.delivered = handled_;
  view.in_flight_count = in_flight_.size();
  for (const auto& [id, envelope] : in_flight_) {
    if (view.in_flight.size() == kInFlightShown) break;
    view.in_flight.push_back(envelope);
  }
  before_ = std::move(now);
  return view;
}

std::vector<JournalPage> SimulatedWorld::journals(std::uint64_t most) {
  return thread_.run([&] { return world_->journals(most); });
}

// The world's own: nobody else's page may play with it.
std::string SimulatedWorld::token() { return token_; }

}  // namespace troupe
