#include "messages/peer_transport.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <new>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/log.h"
#include "messages/pieces.h"
#include "messages/ucx_ways.h"

namespace troupe {
namespace {

constexpr std::int64_t kGoodbyeUs = 2'000'000;
constexpr std::size_t kUnknownMax = 1024;  // ways of peers that nobody has introduced yet

// What an address begins with, before that of the transport below.
struct Introduction {
  MachinePlace place{};
  PeerCopies::GpuName gpu{};
  std::uint64_t name = 0;  // of this transport
};

// A header of ours begins like this; an encoded frame's begins otherwise (messages/codec.h).
struct Note {
  static constexpr std::uint64_t kMagic = 0x59415745434E4154;
  std::uint64_t magic = kMagic;
  std::uint64_t sender = 0;
  std::uint64_t number = 0;  // of the frame, from 1; 0: a way is to be opened, its id follows
  std::uint64_t pieces = 0;  // whose sizes follow (u64), then the frame's own header
};

// One direction. Payloads are held until their transfer is over, or the way closed.
struct Way {
  std::unique_ptr<PeerWay> way;
  std::uint64_t over = 0;
  std::int64_t since_us = 0;  // it was begun, or the transfer that is the oldest now became that
  bool opened = false;
  std::deque<FramePayloads> sent;                                              // of an outgoing one
  std::uint64_t next = 1;                                                      // of an incoming one, as the rest
  std::map<std::uint64_t, std::pair<Frame, std::vector<std::uint64_t>>> come;  // not started: sizes of pieces
  std::deque<Frame> taking;
  bool moves() const { return !sent.empty() || !taking.empty(); }
};

struct Peer {
  std::uint64_t name = 0;
  bool beside = false;  // another GPU of this machine
  bool lost = false;
  std::uint64_t number = 0;
  Way out;
};

std::vector<PeerPiece> pieces_of(const FramePayloads& payloads) {
  std::vector<PeerPiece> pieces;
  for (const Payload& payload : payloads) pieces.push_back({payload.data.get(), payload.size});
  return pieces;
}

class PeerTransport final : public Transport {
 public:
  PeerTransport(std::unique_ptr<Transport> below, std::unique_ptr<PeerCopies> copies, PeerTransportOptions options)
      : below_(std::move(below)), copies_(std::move(copies)), options_(std::move(options)) {
    self_.place = own_place();
    self_.gpu = copies_->gpu();
    self_.name = options_.name;
  }
  ~PeerTransport() override;
  PeerTransport(const PeerTransport&) = delete;
  PeerTransport& operator=(const PeerTransport&) = delete;

  std::string local_address() const override {
    return std::string(reinterpret_cast<const char*>(&self_), sizeof self_) + below_->local_address();
  }
  void connect(std::uint32_t node, const std::string& address) override;
  void forget(std::uint32_t node) override;
  bool carries_device_memory(std::uint32_t node) const override;
  void send(std::uint32_t node, Frame frame) override;
  bool poll(const std::function<void(Frame)>& deliver) override;
  bool arm() override { return !moves() && below_->arm(); }
  int wake_fd() const override { return below_->wake_fd(); }

 private:
  void begin_way(std::uint32_t node, Peer& peer);
  void take(Frame frame);
  void take_way(const Note& note, const Frame& frame);
  void take_frame(const Note& note, Frame frame);
  void start_come(Way& way);
  bool progress_out(std::uint32_t node, Peer& peer);
  bool progress_in(std::uint64_t name, Way& way);
  std::string why_lost(const Way& way) const;
  bool waits_too_long(const Way& way) const;
  void lose(std::uint32_t node, const std::string& why);
  void lose_sender(std::uint64_t name, const std::string& why);
  void end(Way& way);
  bool moves() const;
  bool settle(const std::function<bool()>& done);

  std::unique_ptr<Transport> below_;
  std::unique_ptr<PeerCopies> copies_;
  const PeerTransportOptions options_;
  Introduction self_;
  std::map<std::uint32_t, Peer> peers_;
  std::map<std::uint64_t, Way> in_;     // by the sender's name
  std::set<std::uint64_t> gone_;        // senders
  std::deque<Way> ending_;              // until they are closed
  std::vector<Frame> whole_;            // here with all their pieces
  std::uint64_t sent_ = 0, taken_ = 0;  // frames with pieces
};

// ---- Peers ----------------------------------------------------------------------------------------------------------
void PeerTransport::connect(std::uint32_t node, const std::string& address) {
  forget(node);
  Introduction told;
  if (address.size() <= sizeof told) {
    log_warning("event=unreachable peer={} reason=\"an address of {} bytes\"", node, address.size());
    return;
  }
  std::memcpy(&told, address.data(), sizeof told);
  below_->connect(node, address.substr(sizeof told));
  Peer& peer = peers_[node];
  peer.name = told.name;
  peer.beside =
      told.place == self_.place && told.gpu != self_.gpu && !below_->carries_device_memory(node) && told.name != 0;
  if (peer.beside) begin_way(node, peer);
}

void PeerTransport::begin_way(std::uint32_t node, Peer& peer) {
  try {
    const PeerCopies::Id id = copies_->make_id();
    peer.out.way = copies_->open(id, true);
    peer.out.since_us = options_.now_us();
    Frame frame;
    const Note note{Note::kMagic, self_.name, 0, 0};
    put_before(frame.header, std::as_bytes(std::span(id)));
    put_before(frame.header, std::as_bytes(std::span(&note, 1)));
    below_->send(node, std::move(frame));
  } catch (const std::exception& problem) {
    log_warning("event=no_device_way peer={} reason=\"{}\": rows go there through pinned memory", node, problem.what());
  }
}

void PeerTransport::forget(std::uint32_t node) {
  below_->forget(node);
  const auto found = peers_.find(node);
  if (found == peers_.end()) return;
  end(found->second.out);
  gone_.insert(found->second.name);
  if (const auto way = in_.find(found->second.name); way != in_.end()) {
    end(way->second);
    in_.erase(way);
  }
  peers_.erase(found);
}

bool PeerTransport::carries_device_memory(std::uint32_t node) const {
  if (below_->carries_device_memory(node)) return true;
  const auto peer = peers_.find(node);
  return peer != peers_.end() && !peer->second.lost && peer->second.out.opened;
}

// The memory of what it had under way is held until nobody touches it.
void PeerTransport::end(Way& way) {
  if (!way.way) return;
  way.way->abort();
  ending_.push_back(std::move(way));
  way = Way{};
}

// The one sentence of it: from here on nothing goes there, so it counts as lost as a process does that is cut off.
void PeerTransport::lose(std::uint32_t node, const std::string& why) {
  Peer& peer = peers_.at(node);
  if (std::exchange(peer.lost, true)) return;
  log_warning("event=device_way_lost peer={} reason=\"{}\": the way between the GPUs is given up, and the node with it",
              node, why);
  end(peer.out);
  gone_.insert(peer.name);
  if (const auto way = in_.find(peer.name); way != in_.end()) end(way->second);
}

void PeerTransport::lose_sender(std::uint64_t name, const std::string& why) {
  for (const auto& [node, peer] : peers_)
    if (peer.name == name) return lose(node, why);
  end(in_.at(name));  // of nobody who is known
}

// ---- Sending --------------------------------------------------------------------------------------------------------
// The pieces stand on this GPU's stream before the other end can hear of them.
void PeerTransport::send(std::uint32_t node, Frame frame) {
  const auto found = peers_.find(node);
  if (found == peers_.end() || found->second.lost) return;
  if (frame.device.empty() || below_->carries_device_memory(node)) return below_->send(node, std::move(frame));
  Peer& peer = found->second;
  CHECK(peer.out.opened, "{} payloads in device memory to node {}, where no way is open", frame.device.size(), node);
  const Note note{Note::kMagic, self_.name, ++peer.number, frame.device.size()};
  std::vector<std::uint64_t> sizes;
  for (const Payload& payload : frame.device) sizes.push_back(payload.size);
  put_before(frame.header, std::as_bytes(std::span(sizes)));
  put_before(frame.header, std::as_bytes(std::span(&note, 1)));
  if (peer.out.sent.empty()) peer.out.since_us = options_.now_us();
  peer.out.way->start(pieces_of(frame.device));
  peer.out.way->poll();
  peer.out.sent.push_back(std::exchange(frame.device, {}));
  ++sent_;
  below_->send(node, std::move(frame));
}

// ---- Receiving ------------------------------------------------------------------------------------------------------
void PeerTransport::take(Frame frame) {
  Note note;
  std::memcpy(&note, frame.header.data(), sizeof note);
  if (gone_.contains(note.sender)) return;
  note.number == 0 ? take_way(note, frame) : take_frame(note, std::move(frame));
}

void PeerTransport::take_way(const Note& note, const Frame& frame) {
  PeerCopies::Id id{};
  const bool fits = frame.header.size() == sizeof note + id.size() && in_.size() < kUnknownMax;
  if (!fits || in_.contains(note.sender)) {
    log_warning("event=frame_refused reason=\"a way between GPUs that can't be\"");
    return;
  }
  std::memcpy(id.data(), frame.header.data() + sizeof note, id.size());
  Way& way = in_[note.sender];
  try {
    way.way = copies_->open(id, false);
  } catch (const std::exception& problem) {
    log_warning("event=no_device_way reason=\"{}\": rows come through pinned memory", problem.what());
  }
  way.since_us = options_.now_us();
}

void PeerTransport::take_frame(const Note& note, Frame frame) {
  const auto found = in_.find(note.sender);
  const std::size_t sizes_bytes = note.pieces * sizeof(std::uint64_t);
  const bool fits = note.pieces > 0 && note.pieces <= kFrameDeviceMax &&
                    frame.header.size() >= sizeof note + sizes_bytes && found != in_.end() && found->second.way &&
                    note.number >= found->second.next;
  std::vector<std::uint64_t> sizes(fits ? note.pieces : 0);
  if (fits) std::memcpy(sizes.data(), frame.header.data() + sizeof note, sizes_bytes);
  const auto impossible = [](std::uint64_t size) { return size == 0 || size > kFramePayloadMax; };
  if (!fits || std::any_of(sizes.begin(), sizes.end(), impossible)) {
    log_warning("event=frame_refused reason=\"a note of payloads between GPUs that can't be\"");
    return;
  }
  frame.header.erase(frame.header.begin(),
                     frame.header.begin() + static_cast<std::ptrdiff_t>(sizeof note + sizes_bytes));
  Way& way = found->second;
  if (!way.moves() && way.come.empty()) way.since_us = options_.now_us();
  way.come.emplace(note.number, std::pair(std::move(frame), std::move(sizes)));
  start_come(way);
}

// In the order in which the sender started them, however the notes came.
void PeerTransport::start_come(Way& way) {
  for (auto next = way.come.find(way.next); next != way.come.end(); next = way.come.find(++way.next)) {
    auto [frame, sizes] = std::move(next->second);
    way.come.erase(next);
    for (const std::uint64_t size : sizes) frame.device.push_back(options_.device_pool->take(size));
    way.way->start(pieces_of(frame.device));
    way.taking.push_back(std::move(frame));
  }
}

// ---- Progress -------------------------------------------------------------------------------------------------------
bool PeerTransport::moves() const {
  const auto out = [](const auto& item) { return item.second.out.moves(); };
  const auto in = [](const auto& item) { return item.second.moves() || !item.second.come.empty(); };
  return std::any_of(peers_.begin(), peers_.end(), out) || std::any_of(in_.begin(), in_.end(), in);
}

bool PeerTransport::waits_too_long(const Way& way) const {
  const std::int64_t limit_us = way.opened ? options_.still_us : options_.open_us;
  return (!way.opened || way.moves() || !way.come.empty()) && options_.now_us() - way.since_us > limit_us;
}

// Empty: it isn't.
std::string PeerTransport::why_lost(const Way& way) const {
  if (way.way->state() == PeerWay::State::broken) return way.way->problem();
  if (!waits_too_long(way)) return "";
  return fmt::format("{} for {} ms", way.opened ? "a transfer has not ended" : "a way has not opened",
                     (way.opened ? options_.still_us : options_.open_us) / 1000);
}

bool PeerTransport::progress_out(std::uint32_t node, Peer& peer) {
  Way& way = peer.out;
  if (!way.way) return false;
  const std::uint64_t over = way.way->poll();
  const bool ended = over > way.over;
  for (; way.over < over; ++way.over) way.sent.pop_front();
  if (ended) way.since_us = options_.now_us();
  if (!way.opened && way.way->state() == PeerWay::State::open) {
    way.opened = true;
    log_info("event=device_way_open peer={}", node);
  }
  const std::string why = why_lost(way);
  if (why.empty()) return ended;
  if (way.opened) return lose(node, why), true;
  log_warning("event=no_device_way peer={} reason=\"{}\": rows go there through pinned memory", node, why);
  end(way);
  return true;
}

bool PeerTransport::progress_in(std::uint64_t name, Way& way) {
  if (!way.way) return false;
  const std::uint64_t over = way.way->poll();
  const bool ended = over > way.over;
  for (; way.over < over; ++way.over) {
    whole_.push_back(std::move(way.taking.front()));
    way.taking.pop_front();
    ++taken_;
  }
  if (ended) way.since_us = options_.now_us();
  way.opened = way.opened || way.way->state() == PeerWay::State::open;
  const std::string why = why_lost(way);
  if (why.empty()) return ended;
  if (way.moves() || !way.come.empty() || way.opened)
    lose_sender(name, why);
  else
    end(way);  // its sender will find out too, and use it for nothing
  return true;
}

bool PeerTransport::poll(const std::function<void(Frame)>& deliver) {
  bool happened = below_->poll([&](Frame frame) {
    std::uint64_t magic = 0;
    if (frame.header.size() >= sizeof(Note)) std::memcpy(&magic, frame.header.data(), sizeof magic);
    magic == Note::kMagic ? take(std::move(frame)) : deliver(std::move(frame));
  });
  for (auto& [node, peer] : peers_) happened |= progress_out(node, peer);
  for (auto& [name, way] : in_) happened |= progress_in(name, way);
  std::erase_if(ending_, [](const Way& way) { return way.way->state() == PeerWay::State::closed; });
  for (Frame& frame : std::exchange(whole_, {})) deliver(std::move(frame));
  if (options_.rests && ending_.empty() && !moves()) options_.rests();
  return happened;
}

// ---- The end --------------------------------------------------------------------------------------------------------
bool PeerTransport::settle(const std::function<bool()>& done) {
  const std::int64_t begin_us = options_.now_us();
  while (!done()) {
    if (options_.now_us() - begin_us > kGoodbyeUs) return false;
    poll([](const Frame&) {});
    std::this_thread::yield();
  }
  return true;
}

PeerTransport::~PeerTransport() {
  const auto leaving = [](const auto& item) { return item.second.out.moves() && !item.second.lost; };
  settle([&] { return std::none_of(peers_.begin(), peers_.end(), leaving); });
  for (auto& [node, peer] : peers_) end(peer.out);
  for (auto& [name, way] : in_) end(way);
  const bool closed = settle([&] { return ending_.empty(); });
  if (sent_ + taken_ > 0) log_info("event=device_memory_carried way=nccl sent={} taken={}", sent_, taken_);
  if (closed) return;
  log_info("event=device_ways_leaked ways={}", ending_.size());
  (void)new (std::nothrow) std::deque<Way>(std::move(ending_));  // a GPU may still touch their memory
}

}  // namespace

std::unique_ptr<Transport> make_peer_transport(std::unique_ptr<Transport> below, std::unique_ptr<PeerCopies> copies,
                                               PeerTransportOptions options) {
  return std::make_unique<PeerTransport>(std::move(below), std::move(copies), std::move(options));
}

}  // namespace troupe
