// SimNetwork: the wires between simulated nodes, in virtual time. A frame arrives after a latency, the time its bytes
// take on the link, and a jitter; small frames overtake large ones; some are lost, repeated, held back or damaged, and a
// cut link carries nothing. The law: what happens to the n-th frame from one end to another is a pure function of seed,
// ends and n. An end is one incarnation of a node: what is sent to a dead one vanishes, what a dead one had sent still
// arrives, all or some of it.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "messages/transport.h"

namespace troupe {

// Frames sent from `from` to `to` between begin_us and end_us are lost; the other way is another cut.
struct LinkCut {
  std::uint32_t from = 0, to = 0;
  std::int64_t begin_us = 0, end_us = 0;
};

struct SimNetworkOptions {
  std::uint64_t seed = 0;
  std::int64_t latency_us = 20, jitter_us = 0;
  double bytes_per_us = 1000;
  std::size_t small_bytes_max = 1024;                        // frames up to this don't wait for the link
  double drop = 0, duplicate = 0, reorder = 0, corrupt = 0;  // probabilities per frame
  std::int64_t reorder_us = 0;                               // what a frame held back waits at most, besides
  std::int64_t faults_end_us = 0;                            // no frame sent later is struck; 0: faults never end
  std::vector<LinkCut> cuts;
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
  std::unique_ptr<Transport> attach(std::uint32_t node, std::uint32_t incarnation);
  // The incarnation is dead: nothing reaches it any more, and of what it had sent this share is lost, by a draw.
  void detach(std::uint32_t node, std::uint32_t incarnation, double lost = 0);
  static std::string address(std::uint32_t node, std::uint32_t incarnation);

  void set_time(std::int64_t now_us) { now_us_ = now_us; }
  // When the next frame reaches that end, or any; the largest number if none is under way.
  std::int64_t next_us(std::uint32_t node, std::uint32_t incarnation) const;
  std::int64_t next_us() const;
  std::size_t under_way() const;
  const SimNetworkCounters& counters() const { return counters_; }

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
  void send(const End& from, const End& to, Frame frame);
  void put(const End& to, std::int64_t at_us, Flight flight);
  bool take(const End& end, Frame& frame);
  bool is_cut(std::uint32_t from, std::uint32_t to) const;
  Wire& wire(const End& from, const End& to);
  Frame arrived(Flight flight);

  SimNetworkOptions options_;
  std::int64_t now_us_ = 0;
  std::uint64_t puts_ = 0;
  std::map<End, std::map<Arrival, Flight>> inboxes_;  // of the living
  std::map<std::pair<End, End>, Wire> wires_;
  PayloadPool pool_;
  SimNetworkCounters counters_;
};

}  // namespace troupe
