// Node: one process's loop thread. It carries messages between actors, here and elsewhere, and wakes for whatever
// comes: transport, finished segments, disk, control socket, ticks. Everything that an actor may do, it does through
// Context.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "actors/adapter.h"
#include "actors/disk.h"
#include "kernels/device.h"
#include "messages/link.h"
#include "messages/transport.h"

namespace troupe {

class Node;

constexpr std::uint32_t kNoAttempt = 0xFFFFFFFF;  // before the first Restore
// A grant or answer of an attempt that this actor has yet to enter: kept until its own Restore comes.
inline bool is_future(std::uint32_t attempt, std::uint32_t own) { return own == kNoAttempt || attempt > own; }

// What an actor holds of the world.
class Context {
 public:
  Context(Node& node, Address self, std::uint32_t handle) : node_(&node), self_(self), handle_(handle) {}
  const Address& self() const { return self_; }
  std::uint32_t handle() const { return handle_; }
  void post(const Address& to, Message message) const;
  void submit(const SegmentKey& key, std::vector<Op> ops, std::uint64_t token) const;
  Device& device() const;
  Disk& disk() const;
  PayloadPool& pool() const;
  std::int64_t now_us() const;  // time of the current turn, the same for all its messages
 private:
  Node* node_;
  Address self_;
  std::uint32_t handle_;
};

struct NodeParts {
  Device* device = nullptr;
  Disk* disk = nullptr;
  PayloadPool* pool = nullptr;
  Transport* transport = nullptr;  // null: a single process
};

class Node {
 public:
  Node(std::uint32_t id, std::uint32_t incarnation, NodeParts parts);
  ~Node();
  std::uint32_t id() const { return id_; }

  // Where an address lives. Addresses on no node go up (the supervisor's).
  void place(const Address& address, std::uint32_t node) { directory_[address] = node; }
  void connect(std::uint32_t node, std::uint32_t incarnation, const std::string& transport_address);
  void set_uplink(std::function<void(const Envelope&)> uplink) { uplink_ = std::move(uplink); }

  // Creates the actor from a factory that receives its Context.
  template <typename Actor, typename... Args>
  Actor& add(const Address& address, Args&&... args) {
    const auto handle = static_cast<std::uint32_t>(actors_.size());
    auto actor = std::make_shared<Actor>(Context(*this, address, handle), std::forward<Args>(args)...);
    const std::uint32_t hired = company_.hire(handler_of(*actor));
    CHECK(hired == handle, "actor {} was hired as {}", handle, hired);
    actors_.push_back(actor);
    addresses_.push_back(address);
    local_[address] = handle;
    return *actor;
  }

  void post(const Address& from, const Address& to, Message message);
  void watch(int fd, std::function<void()> readable);

  // From here on mail is dropped unread: the actors are about to end.
  void close() { company_.close(); }

  // One pass over everything that waits; true while more may be waiting.
  bool turn();
  // Turns, sleeping while nothing happens, until `done` says so.
  void run(const std::function<bool()>& done);
  std::int64_t now_us() const { return now_us_; }
  NodeParts& parts() { return parts_; }

 private:
  void deliver_local(Envelope envelope);
  void receive(Frame frame);
  void read_clock();
  bool sleep(int milliseconds);

  std::uint32_t id_, incarnation_;
  NodeParts parts_;
  Company company_;
  std::vector<std::shared_ptr<void>> actors_;
  std::vector<Address> addresses_;
  std::map<Address, std::uint32_t> directory_;
  std::map<Address, std::uint32_t> local_;
  std::map<std::uint32_t, Link> links_;
  std::map<int, std::function<void()>> watched_;
  std::function<void(const Envelope&)> uplink_;
  std::vector<Completion> completions_;
  std::vector<DiskOutcome> outcomes_;
  std::int64_t now_us_ = 0, last_tick_us_ = 0, last_look_us_ = 0;
  int epoll_fd_ = -1;
};

}  // namespace troupe
