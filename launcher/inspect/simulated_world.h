// SimulatedWorld: a run in virtual time, in this process, that a person goes through message by message: forward, to a
// condition, back (from the seed again, with the same deeds, to one message less), with messages dropped, held up or
// repeated and nodes killed. The law: how it goes is a function of the configuration, the seed and the deeds.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "launcher/inspect/own_thread.h"
#include "launcher/inspect/source.h"
#include "launcher/simulation/sim_world.h"

namespace troupe {

struct SimulatedOptions {
  std::string config_path;
  std::vector<std::string> sets;
  std::uint64_t seed = 1;
};

class SimulatedWorld final : public InspectSource {
 public:
  explicit SimulatedWorld(const SimulatedOptions& options);  // throws Error: a configuration that can't be
  ~SimulatedWorld() override;
  SimulatedWorld(const SimulatedWorld&) = delete;
  SimulatedWorld& operator=(const SimulatedWorld&) = delete;

  View look() override;
  std::vector<JournalPage> journals(std::uint64_t most) override;
  MetricsTail& metrics() override { return metrics_; }
  std::string control(const Control& control) override;
  std::string token() override;
  std::uint64_t messages() const { return handled_; }
  std::uint64_t log_hash() const { return world_->log_hash(); }

 private:
  // What was done to the world when so many messages had been handled.
  struct Deed {
    std::uint64_t at = 0;
    Control control;
  };
  View look_now();
  std::string control_now(const Control& control);
  void begin();
  bool advance();
  void replay(std::uint64_t messages);
  std::string run(const Control& control);
  std::string strike(const Control& control);
  void obey(const Deed& deed);
  void lose(std::uint32_t node);
  void bring_back(std::uint32_t node);
  void write_metrics();
  bool is_reached(const Control& control, const Envelope& next) const;

  const std::string folder_;
  const Config config_;
  const Plan plan_;
  const SimulatedOptions options_;
  MetricsTail metrics_;
  std::unique_ptr<SimWorld> world_;
  std::uint64_t handled_ = 0;
  std::uint32_t attempt_ = 0;
  std::size_t reports_written_ = 0;
  std::map<std::uint64_t, Envelope> in_flight_;   // posted, and not yet at their actors
  std::map<std::uint64_t, std::int64_t> struck_;  // by number: 0 dropped, else so late
  std::optional<Envelope> last_;                  // that reached an actor
  std::vector<Deed> deeds_;
  std::string token_, broken_, tainted_;
  std::optional<Observed> before_;
  OwnThread thread_;  // the world's: its actor system must end on the thread that made it
};

}  // namespace troupe
