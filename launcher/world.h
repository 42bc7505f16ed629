// World: one node of a run, built from its parts. Only here are concrete devices, disks and transports named.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <variant>

#include "actors/capture.h"
#include "actors/conductor.h"
#include "actors/data/corpus.h"
#include "actors/node.h"
#include "actors/rollout.h"
#include "actors/rollout_buffer.h"
#include "kernels/profile.h"
#include "launcher/loop.h"

namespace troupe {

// Puts a device in front of a node's own: a test looks at, or keeps from the actors, what passes through it.
using DeviceFront = std::function<std::unique_ptr<Device>(Device& own)>;

struct WorldOptions {
  std::uint32_t node = 0, incarnation = 1;
  int together = 0;  // nodes on this machine; 0: all of the run
  RunMode mode = RunMode::train;
  std::string run_folder;                // checkpoints go here; empty: nothing is saved
  std::shared_ptr<const Corpus> corpus;  // node 0 only
  std::shared_ptr<const TaskSet> tasks;  // where there are any
  Capture* capture = nullptr;
  GenerationRequest request;
  GenerationResult* sink = nullptr;
  CollectedAnswers* answers = nullptr;  // of RunMode::answers
  bool profiled = false;                // see profile()
  DeviceFront front;
  std::string token;  // of the run: who has it may control this node; empty: nobody may
};

class World {
 public:
  // REQUIRES: config outlives the world. Builds this node's actors; in a run of several nodes also its transport.
  World(const Config& config, const WorldOptions& options);
  ~World();

  Node& node();
  Loop& loop();
  NodeBill bill();                        // until now
  std::string transport_address() const;  // for the other nodes
  void connect(std::uint32_t peer, std::uint32_t incarnation, const std::string& address);
  // To the conductor, if it lives here: bring everybody to one state and go on.
  void recover(const Recover& recover);
  // Runs until the conductor reports the end or `done` says so; every report goes to `hear` first. Throws Error for a
  // reported problem.
  void run(const std::function<void(const Report&)>& hear, const std::function<bool()>& done = {});
  void stop(const std::string& reason);  // to the conductor, if it lives here
  // What ops and handlers took since clear_profile(). REQUIRES: profiled.
  OpProfile op_profile() const;
  const HandlerProfile& handler_profile() const;
  void clear_profile();

 private:
  void obey(std::variant<Pause, Envelope>& order);
  void answer_inspectors(const std::string& token);
  void watch(const std::map<Address, std::uint32_t>& places, std::uint32_t node);
  struct Parts;
  const Config& config_;
  std::unique_ptr<Parts> parts_;
};

// What [task] names; null without any.
std::shared_ptr<const TaskSet> open_tasks(const Config& config);

}  // namespace troupe
