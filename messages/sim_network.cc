#include "messages/sim_network.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/base/check.h"
#include "kernels/base/random.h"
#include "messages/frame_bytes.h"

namespace troupe {

namespace {

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

// In the order of SimNetwork::Luck: what the keys of the draws are made of.
constexpr std::array<const char*, 10> kLuckNames = {
    "drop", "jitter", "duplicate", "duplicate's way", "reorder", "held", "corrupt", "where", "what", "lost"};

}  // namespace

class SimTransport final : public Transport {
 public:
  SimTransport(SimNetwork& network, SimNetwork::End self) : network_(network), self_(self) {}

  std::string local_address() const override { return SimNetwork::address(self_.first, self_.second); }
  void connect(std::uint32_t node, const std::string& address) override {
    const std::size_t mark = address.rfind(' ');
    CHECK(mark != std::string::npos, "\"{}\" is no address in a simulated network", address);
    peers_[node] = {node, static_cast<std::uint32_t>(std::stoul(address.substr(mark + 1)))};
  }
  void forget(std::uint32_t node) override { peers_.erase(node); }
  bool carries_device_memory(std::uint32_t node) const override {
    const auto peer = peers_.find(node);
    return peer != peers_.end() && network_.carries(self_, peer->second);
  }
  void send(std::uint32_t node, Frame frame) override {
    const auto peer = peers_.find(node);
    if (peer != peers_.end()) network_.send(self_, peer->second, std::move(frame));
  }
  bool poll(const std::function<void(Frame)>& deliver) override {
    bool any = false;
    for (Frame frame; network_.take(self_, frame); any = true) deliver(std::move(frame));
    return any;
  }
  bool arm() override { return true; }
  int wake_fd() const override { return -1; }

 private:
  SimNetwork& network_;
  const SimNetwork::End self_;
  std::map<std::uint32_t, SimNetwork::End> peers_;
};

SimNetwork::SimNetwork(SimNetworkOptions options) : options_(std::move(options)) {
  CHECK(options_.bytes_per_us > 0, "a link that carries nothing");
  CHECK(!options_.fabric || !has_luck(), "a fabric strikes no frames");
}
SimNetwork::~SimNetwork() = default;

std::string SimNetwork::address(std::uint32_t node, std::uint32_t incarnation) {
  return fmt::format("simulated node {} incarnation {}", node, incarnation);
}

std::unique_ptr<Transport> SimNetwork::attach(std::uint32_t node, std::uint32_t incarnation, PayloadPool* pool,
                                              PayloadPool* device_pool) {
  const bool fresh = inboxes_.try_emplace(End{node, incarnation}).second;
  CHECK(fresh, "node {} has an incarnation {} already", node, incarnation);
  if (pool != nullptr) pools_[{node, incarnation}] = pool;
  if (device_pool != nullptr) device_pools_[{node, incarnation}] = device_pool;
  return std::make_unique<SimTransport>(*this, End{node, incarnation});
}

void SimNetwork::detach(std::uint32_t node, std::uint32_t incarnation, double lost) {
  const End dead{node, incarnation};
  inboxes_.erase(dead);
  pools_.erase(dead);
  if (device_pools_.contains(dead)) device_pools_[dead] = nullptr;
  for (auto& [end, inbox] : inboxes_)
    std::erase_if(inbox, [&, key = wire(dead, end).key(Luck::lost)](const auto& item) {
      return item.second.from == dead && random_uniform(key, item.first.second) < lost;
    });
}

SimNetwork::Wire& SimNetwork::wire(const End& from, const End& to) {
  const auto [place, fresh] = wires_.try_emplace({from, to});
  if (fresh)
    std::transform(kLuckNames.begin(), kLuckNames.end(), place->second.keys.begin(), [&](const char* purpose) {
      return random_key(options_.seed,
                        fmt::format("network {} {}.{} {}.{}", purpose, from.first, from.second, to.first, to.second));
    });
  return place->second;
}

bool SimNetwork::is_cut(std::uint32_t from, std::uint32_t to) const {
  return std::any_of(options_.cuts.begin(), options_.cuts.end(), [&](const LinkCut& cut) {
    return cut.from == from && cut.to == to && now_us_ >= cut.begin_us && now_us_ < cut.end_us;
  });
}

bool SimNetwork::carries(const End& from, const End& to) const {
  return options_.device_copy && device_pools_.contains(from) && device_pools_.contains(to);
}

bool SimNetwork::has_luck() const {
  const SimNetworkOptions& o = options_;
  return o.drop > 0 || o.duplicate > 0 || o.reorder > 0 || o.corrupt > 0 || o.jitter_us > 0 || !o.cuts.empty();
}

// A frame leaves when its port is free; at the other end it takes its turn when it gets there, whoever sent it. A small one
// waits for nobody.
void SimNetwork::depart(const End& from, const End& to, Frame frame) {
  const SimFabric& f = *options_.fabric;
  const std::size_t bytes = bytes_of(frame);
  const bool between = from.first / f.nodes_a_host != to.first / f.nodes_a_host;
  const SimFabric::Port& port = between ? f.between : f.inside;
  const double weight = options_.weighs ? options_.weighs(from.first, to.first, frame) : 1;
  const double lasts_us = static_cast<double>(bytes) * weight / port.bytes_per_us;
  if (bytes <= options_.small_bytes_max)
    return put(to, now_us_ + std::llround(port.latency_us + lasts_us), {from, std::move(frame), {}});
  const std::size_t lane = (between ? 1 : 0) + (bytes > f.bulk_bytes ? 2 : 0);
  double& leaves_us = lanes_[from.first][lane].leaves_us;
  const double begins_us = std::max(static_cast<double>(now_us_), leaves_us);
  leaves_us = begins_us + lasts_us;
  departed_.push_back({begins_us + port.latency_us, lasts_us, puts_++, lane, to, {from, std::move(frame), {}}});
  std::push_heap(departed_.begin(), departed_.end(), later);
}

void SimNetwork::set_time(std::int64_t now_us) {
  now_us_ = now_us;
  while (!departed_.empty() && departed_.front().begins_us <= static_cast<double>(now_us)) {
    std::pop_heap(departed_.begin(), departed_.end(), later);
    Departed d = std::move(departed_.back());
    departed_.pop_back();
    double& arrives_us = lanes_[d.to.first][d.lane].arrives_us;
    arrives_us = std::max(d.begins_us, arrives_us) + d.lasts_us;
    put(d.to, std::max<std::int64_t>(now_us, std::llround(arrives_us)), std::move(d.flight));
  }
}

// When set_time() has something to do.
std::int64_t SimNetwork::next_departure_us() const {
  return departed_.empty() ? kNever : static_cast<std::int64_t>(std::ceil(departed_.front().begins_us));
}

void SimNetwork::send(const End& from, const End& to, Frame frame) {
  ++counters_.sent;
  CHECK(frame.device.empty() || carries(from, to), "{} payloads in device memory to another node", frame.device.size());
  if (options_.fabric) return depart(from, to, std::move(frame));
  Wire& way = wire(from, to);
  const std::uint64_t number = way.frames++;
  const bool faulty = options_.faults_end_us == 0 || now_us_ < options_.faults_end_us;
  const auto strikes = [&](double probability, Luck luck) {
    return faulty && probability > 0 && random_uniform(way.key(luck), number) < probability;
  };
  if (is_cut(from.first, to.first)) {
    ++counters_.cut;
    return;
  }
  if (strikes(options_.drop, Luck::drop)) {
    ++counters_.dropped;
    return;
  }
  const std::size_t bytes = bytes_of(frame);
  const auto carry_us = static_cast<std::int64_t>(static_cast<double>(bytes) / options_.bytes_per_us);
  std::int64_t at_us = now_us_ + carry_us;
  if (bytes > options_.small_bytes_max) at_us = way.free_us = std::max(now_us_, way.free_us) + carry_us;
  const auto wait = [&](std::int64_t most, Luck luck) -> std::int64_t {
    if (most <= 0) return 0;
    const auto bound = static_cast<std::uint64_t>(most) + 1;
    return static_cast<std::int64_t>(random_below(bound, way.key(luck), number));
  };
  at_us += options_.latency_us + wait(options_.jitter_us, Luck::jitter);
  if (strikes(options_.duplicate, Luck::duplicate)) {
    ++counters_.duplicated;
    put(to, at_us + wait(options_.latency_us + options_.reorder_us, Luck::duplicates_way), {from, frame, {}});
  }
  if (strikes(options_.reorder, Luck::reorder)) {
    ++counters_.held;
    at_us += wait(options_.reorder_us, Luck::held);
  }
  Damage damage;
  if (strikes(options_.corrupt, Luck::corrupt)) {
    ++counters_.corrupted;
    // Device memory is kept by the links that carry it.
    const std::size_t seen = frame.device.empty() ? bytes : frame.header.size();
    damage = {true, random_below(seen, way.key(Luck::where), number),
              1 + random_below(255, way.key(Luck::what), number)};
  }
  put(to, at_us, {from, std::move(frame), damage});
}

void SimNetwork::put(const End& to, std::int64_t at_us, Flight flight) {
  const auto inbox = inboxes_.find(to);
  if (inbox == inboxes_.end()) {
    ++counters_.vanished;
    return;
  }
  inbox->second.emplace(Arrival{at_us, puts_++}, std::move(flight));
  if (listener_) listener_(to, at_us);
}

bool SimNetwork::take(const End& end, Frame& frame) {
  const auto inbox = inboxes_.find(end);
  if (inbox == inboxes_.end() || inbox->second.empty()) return false;
  const auto first = inbox->second.begin();
  if (first->first.first > now_us_) return false;
  Flight flight = std::move(first->second);
  inbox->second.erase(first);
  ++counters_.delivered;
  frame = arrived(std::move(flight), end);
  return true;
}

// As from another process: one payload or none, in memory of its own. It is read only now, as a rendezvous does: a
// sender that wrote to what it had sent is found out. What nobody reads has a size alone.
Frame SimNetwork::arrived(Flight flight, const End& end) {
  const auto own = pools_.find(end);
  PayloadPool& pool = own == pools_.end() ? pool_ : *own->second;
  Frame frame{.header = std::move(flight.frame.header), .payloads = {}};
  for (const Payload& piece : flight.frame.device) {
    frame.device.push_back(device_pools_.at(end)->take(piece.size));
    options_.device_copy(frame.device.back().data.get(), piece.data.get(), piece.size);
  }
  std::size_t size = 0, unread = 0;
  for (const Payload& piece : flight.frame.payloads) {
    size += piece.size;
    unread += is_unread(piece.data.get()) ? piece.size : 0;
  }
  if (unread > 0 && unread == size) {
    frame.payloads.push_back({.data = {std::shared_ptr<void>(), unread_memory(size)}, .size = size});
    return frame;
  }
  Payload whole = (unread > 0 ? sparse_pool_ : pool).take(size);
  std::byte* at = whole.data.get();
  for (const Payload& piece : flight.frame.payloads) {
    if (piece.size > 0 && !is_unread(piece.data.get())) std::copy_n(piece.data.get(), piece.size, at);
    at += piece.size;
  }
  if (flight.damage.happens) {
    const std::uint64_t where = flight.damage.where;
    std::byte& struck =
        where < frame.header.size() ? frame.header[where] : whole.data.get()[where - frame.header.size()];
    struck ^= static_cast<std::byte>(flight.damage.what);
  }
  if (size > 0) frame.payloads.push_back(std::move(whole));
  return frame;
}

std::int64_t SimNetwork::next_us(std::uint32_t node, std::uint32_t incarnation) const {
  const auto inbox = inboxes_.find({node, incarnation});
  return inbox == inboxes_.end() || inbox->second.empty() ? kNever : inbox->second.begin()->first.first;
}

std::int64_t SimNetwork::next_us() const {
  std::int64_t next = kNever;
  for (const auto& [end, inbox] : inboxes_)
    if (!inbox.empty()) next = std::min(next, inbox.begin()->first.first);
  return next;
}

std::size_t SimNetwork::under_way() const {
  std::size_t count = departed_.size();
  for (const auto& [end, inbox] : inboxes_) count += inbox.size();
  return count;
}

}  // namespace troupe
