// SimNetwork: the wires between simulated nodes, in virtual time. A frame arrives after a latency, the time its bytes
// take on the link, and a jitter; small frames overtake large ones; some are lost, repeated, held back or damaged, and a
// cut link carries nothing. The law: what happens to the n-th frame from one end to another is a pure function of seed,
// ends and n. An end is one incarnation of a node: what is sent to a dead one vanishes, what a dead one had sent still
// arrives, all or some of it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/sim/unread_memory.h"
#include "messages/transport.h"

namespace troupe {

// Frames sent from `from` to `to` between begin_us and end_us are lost; the other way is another cut.
struct LinkCut {
  std::uint32_t from = 0, to = 0;
  std::int64_t begin_us = 0, end_us = 0;
};

// Hosts of several nodes. A node has a port to the others of its host and one to all other hosts; what it sends leaves
// one frame after another, what it is sent arrives one after another, whoever the others are.
struct SimFabric {
  struct Port {
    double bytes_per_us = 1000;
    std::int64_t latency_us = 20;
  };
  std::uint32_t nodes_a_host = 1;
  Port inside, between;
  std::size_t bulk_bytes = std::size_t{1} << 28;  // larger frames wait for each other, and hold up no others
};

struct SimNetworkOptions {
  std::uint64_t seed = 0;
  std::int64_t latency_us = 20, jitter_us = 0;
  double bytes_per_us = 1000;
  std::size_t small_bytes_max = 1024;                        // frames up to this don't wait for the link
  double drop = 0, duplicate = 0, reorder = 0, corrupt = 0;  // probabilities per frame
  std::int64_t reorder_us = 0;                               // what a frame held back waits at most, besides
  std::int64_t faults_end_us = 0;                            // no frame sent later is struck; 0: faults never end
  std::vector<LinkCut> cuts = {};
  std::optional<SimFabric> fabric = {};  // instead of a wire for each pair with latency_us and bytes_per_us
  // A frame takes as long as so many times its bytes: it stands for frames of others that are not simulated.
  std::function<double(std::uint32_t from, std::uint32_t to, const Frame& frame)> weighs = {};
  // Copies from one node's device memory to another's; empty: none is carried.
  std::function<void(std::byte* to, const std::byte* from, std::size_t size)> device_copy = {};
};

struct SimNetworkCounters {
  std::uint64_t sent = 0, delivered = 0, dropped = 0, duplicated = 0, held = 0, corrupted = 0, cut = 0, vanished = 0;
};

class SimNetwork {
 public:
  using End = std::pair<std::uint32_t, std::uint32_t>;  // node, incarnation
  explicit SimNetwork(SimNetworkOptions options);
  ~SimNetwork();
  SimNetwork(const SimNetwork&) = delete;
  SimNetwork& operator=(const SimNetwork&) = delete;

  // The transport of one incarnation of a node. REQUIRES: the network outlives it.
  // pool: what arrives there lies in it, and outlives it not; null: in the network's own. device_pool: likewise what
  // arrives in device memory; null: none does.
  std::unique_ptr<Transport> attach(std::uint32_t node, std::uint32_t incarnation, PayloadPool* pool = nullptr,
                                    PayloadPool* device_pool = nullptr);
  // The incarnation is dead: nothing reaches it any more, and of what it had sent this share is lost, by a draw.
  void detach(std::uint32_t node, std::uint32_t incarnation, double lost = 0);
  static std::string address(std::uint32_t node, std::uint32_t incarnation);

  void set_time(std::int64_t now_us);
  std::int64_t next_departure_us() const;
  // When the next frame reaches that end, or any; the largest number if none is under way.
  std::int64_t next_us(std::uint32_t node, std::uint32_t incarnation) const;
  std::int64_t next_us() const;
  std::size_t under_way() const;
  const SimNetworkCounters& counters() const { return counters_; }
  // Told of every frame that is under way to an end, and when it will be there.
  using Listener = std::function<void(const End& to, std::int64_t at_us)>;
  void set_listener(Listener listener) { listener_ = std::move(listener); }

 private:
  friend class SimTransport;
  using Arrival = std::pair<std::int64_t, std::uint64_t>;  // time, number: of two at one time the first sent
  enum class Luck : std::uint8_t { drop, jitter, duplicate, duplicates_way, reorder, held, corrupt, where, what, lost };
  static constexpr std::size_t kLucks = 10;
  struct Wire {
    std::array<std::uint64_t, kLucks> keys;  // of its draws, by purpose
    std::uint64_t frames = 0;
    std::int64_t free_us = 0;  // when its last large frame has left
    std::uint64_t key(Luck luck) const { return keys[static_cast<std::size_t>(luck)]; }
  };
  struct Damage {
    bool happens = false;
    std::uint64_t where = 0, what = 0;
  };
  struct Flight {
    End from;
    Frame frame;
    Damage damage;
  };
  // Has left, and its first byte is on the way to the other end's port.
  struct Departed {
    double begins_us = 0, lasts_us = 0;
    std::uint64_t number = 0;
    std::size_t lane = 0;
    End to;
    Flight flight;
  };
  static bool later(const Departed& a, const Departed& b) {
    return std::pair(a.begins_us, a.number) > std::pair(b.begins_us, b.number);
  }
  void send(const End& from, const End& to, Frame frame);
  void put(const End& to, std::int64_t at_us, Flight flight);
  bool take(const End& end, Frame& frame);
  bool is_cut(std::uint32_t from, std::uint32_t to) const;
  Wire& wire(const End& from, const End& to);
  bool carries(const End& from, const End& to) const;
  Frame arrived(Flight flight, const End& end);
  bool has_luck() const;
  void depart(const End& from, const End& to, Frame frame);

  SimNetworkOptions options_;
  std::int64_t now_us_ = 0;
  std::uint64_t puts_ = 0;
  std::map<End, std::map<Arrival, Flight>> inboxes_;  // of the living
  std::map<std::pair<End, End>, Wire> wires_;
  std::map<End, PayloadPool*> pools_;         // of those who brought one
  std::map<End, PayloadPool*> device_pools_;  // likewise; null: it is dead
  struct Lane {
    double leaves_us = 0, arrives_us = 0;  // when the last frame of either way is through
  };
  std::map<std::uint32_t, std::array<Lane, 4>> lanes_;  // of a node: inside its host, between hosts; the same for bulk
  std::vector<Departed> departed_;                      // a heap, the first to get there first
  PayloadPool pool_, sparse_pool_{sparse_memory};
  Listener listener_;
  SimNetworkCounters counters_;
};

}  // namespace troupe
