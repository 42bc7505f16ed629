// Node: one process's actors and their mail, here and elsewhere. It takes what has come (frames, finished segments, disk
// outcomes), runs the actors that have mail, and keeps the links. It is told the time and never sleeps: the launcher's
// loop, or a simulated world, calls turn(). Everything that an actor may do, it does through Context.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "actors/adapter.h"
#include "actors/bill.h"
#include "actors/board.h"
#include "actors/disk.h"
#include "actors/jury.h"
#include "actors/node_watch.h"
#include "actors/wait.h"
#include "kernels/device.h"
#include "messages/link.h"
#include "messages/transport.h"

namespace troupe {

class Node;

constexpr std::uint32_t kNoAttempt = 0xFFFFFFFF;  // before the first Restore
// A grant or answer of an attempt that this actor has yet to enter: kept until its own Restore comes.
inline bool is_future(std::uint32_t attempt, std::uint32_t own) { return own == kNoAttempt || attempt > own; }

// How a segment goes (kernels/device.h).
struct SegmentWay {
  std::uint32_t strand = 0;  // a number of the actor's own, 0 for none
  bool early = false;
};

// What an actor holds of the world.
class Context {
 public:
  Context(Node& node, Address self, std::uint32_t handle) : node_(&node), self_(self), handle_(handle) {}
  const Address& self() const { return self_; }
  std::uint32_t handle() const { return handle_; }
  void post(const Address& to, Message message) const;
  void submit(const SegmentKey& key, Ops ops, std::uint64_t token, const SegmentWay& way = {}) const;
  // Memory of the device; what an actor has is told on the board.
  Memory allocate(std::size_t size, Place place) const;
  Disk& disk() const;
  Jury& jury() const;
  PayloadPool& pool() const;
  // Whether payloads in the device's memory get to this actor: it is on this node, or the transport carries them there.
  bool device_reaches(const Address& to) const;
  // Of what only ops read: on the device, or shared.
  PayloadPool& ops_pool(bool on_device) const;
  // Of what only ops read, on its way to this actor.
  PayloadPool& pool_to(const Address& to) const { return ops_pool(device_reaches(to)); }
  std::int64_t now_us() const;  // time of the current turn, the same for all its messages
 private:
  Node* node_;
  Address self_;
  std::uint32_t handle_;
};

// What handlers took by this clock, by role and kind of message.
struct HandlerTime {
  std::int64_t count = 0, ns = 0;
};
struct HandlerProfile {
  std::function<std::int64_t()> now_ns;
  std::map<std::pair<Role, std::string>, HandlerTime> times;
};

struct NodeParts {
  Device* device = nullptr;
  Disk* disk = nullptr;
  PayloadPool* pool = nullptr;
  Transport* transport = nullptr;  // null: a single process
  LinkLimits link = {};
  NodeWatch* watch = nullptr;                 // null: nobody looks at this node
  std::function<std::int64_t()> now_us = {};  // of the watch's clock, within a turn; empty: the time of the turn
  HandlerProfile* profile = nullptr;          // null: nobody asks what handlers take
  Jury* jury = nullptr;                       // null: nothing is judged here
  PayloadPool* device_pool = nullptr;         // of payloads on the device, which only ops read; null: it is all one
  PayloadPool* ops_pool = nullptr;            // of other payloads that only ops read; null: `pool`
  std::int64_t ask_us = Meter::kAskUs;        // of idle time, before the actors are asked what they wait for
};

class Node {
 public:
  Node(std::uint32_t id, std::uint32_t incarnation, NodeParts parts);
  std::uint32_t id() const { return id_; }

  // Where an address lives. Addresses on no node go up (the supervisor's).
  void place(const Address& address, std::uint32_t node) { directory_[address] = node; }
  bool is_here(const Address& address) const { return local_.contains(address); }
  bool device_reaches(const Address& address) const;
  // A peer's incarnation, reached at this address; whatever an earlier one of it still sends is refused from here on.
  void connect(std::uint32_t node, std::uint32_t incarnation, const std::string& transport_address,
               std::int64_t now_us);
  // A peer is gone: what is sent to it is dropped until it is connected again.
  void forget(std::uint32_t node);
  // Asked for the way to a node that is not connected, before anything is sent there: whoever introduces all from the
  // beginning sets none.
  void set_introducer(std::function<void(std::uint32_t node)> introducer) { introducer_ = std::move(introducer); }
  void set_uplink(std::function<void(const Envelope&)> uplink) { uplink_ = std::move(uplink); }

  // Creates the actor from a factory that receives its Context.
  template <typename Actor, typename... Args>
  Actor& add(const Address& address, Args&&... args) {
    const auto handle = static_cast<std::uint32_t>(actors_.size());
    allocated_.push_back(0);
    auto actor = std::make_shared<Actor>(Context(*this, address, handle), std::forward<Args>(args)...);
    const std::uint32_t hired = company_.hire(watched(handle, timed(handler_of(*actor))));
    CHECK(hired == handle, "actor {} was hired as {}", handle, hired);
    actors_.push_back(actor);
    tellers_.push_back({[&told = *actor](Waits& out) { told.waits(out); },
                        [&told = *actor](std::vector<Credits>& out) {
                          if constexpr (requires { told.credits(out); }) told.credits(out);
                        },
                        [&told = *actor] { return told.attempt(); }, [&told = *actor] { return told.version(); }});
    addresses_.push_back(address);
    CHECK(parts_.watch == nullptr || parts_.watch->actors().at(handle) == address, "{} is not who was expected",
          to_string(address));
    local_[address] = handle;
    return *actor;
  }

  const std::vector<Address>& actors() const { return addresses_; }  // by handle
  // All that an actor waits for now; `since_us` is left to who asks.
  void waits(std::uint32_t actor, Waits& out) const { tellers_.at(actor).waits(out); }

  void post(const Address& from, const Address& to, Message message);
  void set_choice(Company::Choice choice) { company_.set_choice(std::move(choice)); }
  // Sees every envelope that reaches an actor here: a simulated world's log. False: it is lost on its last step.
  using Witness = std::function<bool(const Envelope&)>;
  void set_witness(Witness witness) { witness_ = std::move(witness); }
  // Sees every envelope as it is posted here, to anybody.
  using Posted = std::function<void(const Envelope&)>;
  void set_posted(Posted posted) { posted_ = std::move(posted); }
  // As if it had just arrived.
  void deliver(Envelope envelope) { deliver_local(std::move(envelope)); }

  // From here on mail is dropped unread: the actors are about to end.
  void close();

  // One pass over everything that waits; true while more may be waiting.
  bool turn(std::int64_t now_us, std::size_t messages_max = kMessagesATurn);
  static constexpr std::size_t kMessagesATurn = 4096;
  // Messages whose handlers returned, if somebody watches.
  std::uint64_t handled() const { return handled_; }
  // The board is written now, between turns.
  void show() { write_board(); }
  // Between turns: takes frames only. True: something happened, a turn is due. REQUIRES: there is a transport.
  bool look();
  // The node is about to sleep; what was idle since the turn began waited for the loop.
  void rest(std::int64_t now_us) { meter_.rest(parts_.device->usage(now_us)); }
  // Where the time of the compute threads went. REQUIRES: since_us is when the device began.
  NodeBill bill(std::int64_t since_us, std::int64_t now_us);
  // When turn() should be called again even if nothing comes: links resend, and tell that they live.
  std::int64_t next_tick_us() const { return last_tick_us_ + kTickUs; }
  static constexpr std::int64_t kTickUs = 50'000;
  std::int64_t now_us() const { return now_us_; }
  NodeParts& parts() { return parts_; }
  Completion completion(std::uint32_t actor, std::uint64_t token);
  Memory allocate(std::uint32_t actor, std::size_t size, Place place);
  // Frames sent that a peer has yet to acknowledge.
  std::size_t frames_owed() const;
  // Peers connected and not heard for longer than `limit_us`, or of which a message is missing for so long, with their
  // incarnation.
  std::vector<std::pair<std::uint32_t, std::uint32_t>> silent_peers(std::int64_t limit_us) const;

 private:
  struct Teller {
    std::function<void(Waits&)> waits;
    std::function<void(std::vector<Credits>&)> credits;
    std::function<std::uint32_t()> attempt;
    std::function<std::int64_t()> version;
  };
  Company::Handler watched(std::uint32_t actor, Company::Handler handler);
  Company::Handler timed(Company::Handler handler) const;
  Board* board() const { return parts_.watch == nullptr ? nullptr : parts_.watch->board(); }
  Journal* journal() const { return parts_.watch == nullptr ? nullptr : parts_.watch->journal(); }
  std::int64_t precise_us() const { return parts_.now_us ? parts_.now_us() : now_us_; }
  Envelope numbered(Envelope envelope);
  void write_board();
  void write_bill();
  void write_actor(std::uint32_t actor);
  static BoardPeer peer_of(std::uint32_t node, const Link& link);
  void deliver_local(Envelope&& envelope);
  bool can_leave(std::uint32_t node, const Envelope& envelope) const;
  void hand_over(std::uint32_t actor, Envelope&& envelope);
  void receive(const Frame& frame);
  std::function<void(Frame)> receive_ = [this](const Frame& frame) { receive(frame); };
  const NodeWaits& all_waits();

  std::uint32_t id_, incarnation_;
  NodeParts parts_;
  Company company_;
  Meter meter_;
  std::vector<std::shared_ptr<void>> actors_;
  std::vector<Address> addresses_;
  std::vector<Teller> tellers_;
  std::map<Address, std::uint32_t> directory_;
  std::map<Address, std::uint32_t> local_;
  std::map<std::uint32_t, Link> links_;
  std::function<void(const Envelope&)> uplink_;
  std::function<void(std::uint32_t)> introducer_;
  Witness witness_;
  Posted posted_;
  std::uint64_t handled_ = 0;
  std::vector<Completion> completions_;
  std::vector<DiskOutcome> outcomes_;
  std::vector<JuryOutcome> verdicts_;
  std::int64_t now_us_ = 0, last_tick_us_ = 0;
  bool looked_ = false;                 // frames were taken since the last turn
  std::uint64_t handling_ = 0;          // the number of the message under way
  std::vector<std::size_t> allocated_;  // bytes, by actor
  std::int64_t billed_us_ = 0;
  BoardNode page_;
  Waits waits_;
  std::vector<Credits> credits_;
  NodeWaits all_waits_;
};

}  // namespace troupe
