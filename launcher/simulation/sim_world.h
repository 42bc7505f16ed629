// SimWorld: all nodes of a run in one process and in virtual time. The actors, the node, the link layer, the codec and
// the ready heap are those of production; device, wires, disk and clock are simulated. The law: everything that happens
// is a function of the configuration and of the options with their seed; log_hash() says in one number that two worlds
// went alike.
#pragma once

#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/sim_disk.h"
#include "actors/sim_jury.h"
#include "kernels/sim/device.h"
#include "launcher/bill.h"
#include "launcher/simulation/agenda.h"
#include "launcher/simulation/cores.h"
#include "launcher/simulation/events.h"
#include "launcher/world.h"
#include "messages/sim_network.h"

namespace troupe {

// Loops and compute threads as they are on real machines: a turn takes its time, measured here, a loop that slept has to
// wake, and whoever finds no core free waits or holds up others. Devices are timed.
struct HostOptions {
  CoresOptions cores = {};  // of a host; `owners` is the world's business
  std::uint32_t nodes_a_host = 1;
  double switch_us = 0;                // a core that goes from a segment to the loop and back, beside the turn
  double wake_us = 0;                  // until a loop that slept has its turn
  double late_share = 0, late_us = 0;  // where threads wait for cores, so many of those turns come up to so much later
};

struct SimWorldOptions {
  std::uint64_t seed = 1;
  std::string run_folder;
  std::shared_ptr<const Corpus> corpus;
  SimNetworkOptions network;
  std::vector<SimDeviceOptions> devices;  // one a node
  SimDiskOptions disk;                    // of the node that writes checkpoints; its root is the run's folder
  SimJuryOptions jury;                    // of the node with the judge
  LinkLimits link;
  std::int64_t ask_us = Meter::kAskUs;  // see NodeParts
  bool introduced = true;  // all nodes to each other from the beginning; false: when the first message goes
  DeviceFront front;
  std::optional<HostOptions> hosts;                     // none: loops take no time
  std::size_t journal_records = 0;                      // of each node; 0: no journals
  std::function<std::int64_t(const Envelope&)> delays;  // above 0: the message reaches its actor so much later
  std::function<void(const Envelope&)> posted;          // told of every message that an actor posts
  std::function<bool(const Envelope&)> loses;  // true: the message vanishes before its actor, a fault of the program
};

class SimWorld {
 public:
  // Told of every message that reaches an actor of a node that is not a zombie.
  using Witness = std::function<void(std::int64_t now_us, std::uint32_t node, const Envelope& envelope)>;
  SimWorld(const Config& config, SimWorldOptions options, Witness witness = {});
  ~SimWorld();
  SimWorld(const SimWorld&) = delete;
  SimWorld& operator=(const SimWorld&) = delete;

  // Begins or begins again, as the supervisor does: the conductor is told to bring everybody to one state.
  void start(const Recover& recover);
  // Goes on until `done`, which is asked between events. False: the virtual time limit came first.
  bool run_until(const std::function<bool()>& done, std::int64_t limit_us);
  // One message is handled, somewhere. False: nothing will ever happen, or not before the limit.
  bool advance(std::int64_t limit_us);
  // Boards as of now.
  void show();
  // To an actor wherever it lives, as if it had just arrived. False: its node is down.
  bool deliver(const Envelope& envelope);
  // Goes on until nothing is owed anywhere. False: something still is at the time limit.
  bool settle(std::int64_t limit_us);

  // The node's process ends at once; its disk loses what was not synced.
  void kill(std::uint32_t node);
  // The node is given up by the others but runs on; what it sends must be refused. It dies with the world.
  void abandon(std::uint32_t node);
  // A new incarnation in the place of one that was killed or abandoned; the others are introduced to it.
  void restart(std::uint32_t node);
  bool is_up(std::uint32_t node) const;
  // The node does nothing any more, as a process that is stopped; or because this actor's handler never returns.
  void stop(std::uint32_t node);
  void hang(std::uint32_t node, std::uint32_t actor, const Envelope& envelope);
  // The boards of all nodes, of those that died the last.
  std::vector<BoardPage> pages() const;
  // And their journals, those of the dead too, if there are any; of each the last so many records.
  std::vector<JournalPage> journals(std::uint64_t most = std::numeric_limits<std::uint64_t>::max()) const;
  Events& events() { return events_; }

  std::int64_t now_us() const { return now_us_; }
  std::uint64_t messages() const { return messages_; }
  std::uint64_t rounds() const { return rounds_; }  // moments so far
  std::uint64_t segments() const;
  std::uint64_t log_hash() const { return hash_; }
  const SimNetworkCounters& network_counters() const { return network_.counters(); }
  const std::vector<Report>& reports() const { return reports_; }
  bool finished() const { return finished_; }
  // The bill's last line, as the launcher writes it.
  nlohmann::json bill();
  const std::string& problem() const { return problem_; }
  const SimDisk* disk() const;  // null while its node is down
  // The most that the actors and messages of a living node held at once, by node.
  struct BytesPeak {
    std::size_t device = 0, shared = 0;
  };
  std::map<std::uint32_t, BytesPeak> bytes_peak() const;
  // Bytes in memory now, of the actors and messages of each node. REQUIRES: devices have blocks.
  std::vector<std::size_t> bytes_resident() const;
  std::size_t scratch_bytes(std::uint32_t node) const;  // of a compute thread
  // Written by its journal so far. REQUIRES: journals, nobody died.
  std::uint64_t journal_records(std::uint32_t node) const;
  // Nothing is under way, anywhere.
  bool at_rest() const;
  // What is owed, a sentence a node; empty at rest.
  std::string owed() const;

 private:
  struct Member;
  struct Host {
    Cores cores;
    std::int64_t sharing_us = 0;  // cores are shared anew then
  };
  void watch(Member& m, const std::map<Address, std::uint32_t>& places) const;
  void listen_to(Member* m);
  void add_member(std::uint32_t node, std::uint32_t incarnation);
  void introduce(Member& one, Member& other);
  void hear(const Envelope& envelope);
  void tell_bills();
  void turn(Member& member);
  void take_turns(Member& member);
  void turn_timed(Member& member);
  void hold_up(const Member& member, std::int64_t us);
  bool wakes(Member& member);
  void share_cores(std::uint32_t host);
  Host& host_at(std::uint32_t number);
  std::vector<std::size_t> seats_of(std::uint32_t host) const;
  void advance_parts(Member& member);
  std::size_t begin_moment(std::int64_t at_us);
  void step(std::int64_t at_us);
  std::int64_t next_us() const;
  Member* living(std::uint32_t node) const;
  void log(std::uint64_t word);
  void plan(std::size_t member);
  void plan_all();

  const Config config_;
  const SimWorldOptions options_;
  Witness witness_;
  SimNetwork network_;
  Events events_;
  std::vector<std::unique_ptr<Member>> members_;
  Agenda agenda_;
  std::map<std::uint32_t, Host> hosts_;
  std::map<SimNetwork::End, std::size_t> seats_;  // among the members
  std::vector<std::uint32_t> incarnations_;       // the last of each node
  std::int64_t now_us_ = 0;
  std::uint64_t messages_ = 0, rounds_ = 0, segments_of_dead_ = 0, hash_ = 14695981039346656037ULL;
  std::vector<Report> reports_;
  RunBill bill_;
  std::shared_ptr<const TaskSet> tasks_;
  bool finished_ = false;
  std::string problem_;
  std::vector<BoardPage> graves_;
  std::vector<JournalPage> journals_of_dead_;
};

}  // namespace troupe
