#include "actors/node.h"

#include <algorithm>
#include <numeric>

#include "kernels/base/log.h"

namespace troupe {

namespace {
constexpr std::int64_t kBillUs = 1'000'000;  // the board's bill is about so old
constexpr Address kNobody{Role::supervisor, 0};
}  // namespace

void Context::post(const Address& to, Message message) const { node_->post(self_, to, std::move(message)); }
void Context::submit(const SegmentKey& key, Ops ops, std::uint64_t token, const SegmentWay& way) const {
  const std::uint64_t whole = way.strand == 0 ? 0 : static_cast<std::uint64_t>(handle_) << 32 | way.strand;
  node_->parts().device->submit(Segment{key, std::move(ops), node_->completion(handle_, token), whole, way.early});
}
Memory Context::allocate(std::size_t size, Place place) const { return node_->allocate(handle_, size, place); }
Disk& Context::disk() const { return *node_->parts().disk; }
Jury& Context::jury() const { return *node_->parts().jury; }
PayloadPool& Context::pool() const { return *node_->parts().pool; }
bool Context::device_reaches(const Address& to) const { return node_->device_reaches(to); }
PayloadPool& Context::ops_pool(bool on_device) const {
  const NodeParts& parts = node_->parts();
  if (on_device && parts.device_pool != nullptr) return *parts.device_pool;
  return parts.ops_pool != nullptr ? *parts.ops_pool : *parts.pool;
}
std::int64_t Context::now_us() const { return node_->now_us(); }

Node::Node(std::uint32_t id, std::uint32_t incarnation, NodeParts parts)
    : id_(id), incarnation_(incarnation), parts_(std::move(parts)), meter_(incarnation, parts_.ask_us) {}

void Node::connect(std::uint32_t node, std::uint32_t incarnation, const std::string& transport_address,
                   std::int64_t now_us) {
  parts_.transport->connect(node, transport_address);
  links_.insert_or_assign(node, Link(id_, incarnation_, node, incarnation, parts_.link, now_us));
}

void Node::forget(std::uint32_t node) {
  links_.erase(node);
  parts_.transport->forget(node);
}

bool Node::device_reaches(const Address& address) const {
  if (is_here(address)) return true;
  const auto place = directory_.find(address);
  return parts_.transport != nullptr && place != directory_.end() &&
         parts_.transport->carries_device_memory(place->second);
}

// What lies on the device was made for a peer that it reached. If it doesn't any more, that peer is lost and another has
// its place: the next attempt says everything again, in memory that goes there.
bool Node::can_leave(std::uint32_t node, const Envelope& envelope) const {
  if (parts_.device_pool == nullptr || parts_.transport->carries_device_memory(node)) return true;
  if (!is_on_device(envelope.message)) return true;
  log_info("event=message_dropped to={} kind={} reason=\"made in device memory for an earlier process of node {}\"",
           to_string(envelope.to), kind_of(envelope.message), node);
  return false;
}

void Node::post(const Address& from, const Address& to, Message message) {
  Envelope envelope = numbered({from, to, std::move(message)});
  if (posted_) posted_(envelope);
  if (local_.contains(to)) return deliver_local(std::move(envelope));
  const auto place = directory_.find(to);
  if (place == directory_.end() || place->second == id_) {
    CHECK(uplink_, "{} lives nowhere ({} from {})", to_string(to), kind_of(envelope.message), to_string(from));
    return uplink_(envelope);
  }
  auto link = links_.find(place->second);
  if (link == links_.end() && introducer_) {
    introducer_(place->second);
    link = links_.find(place->second);
  }
  if (link == links_.end()) return;  // its node is gone: the next attempt says everything again
  if (!can_leave(place->second, envelope)) return;
  if (journal() != nullptr) journal()->sent(envelope);
  link->second.send(envelope, now_us_, [&](Frame frame) { parts_.transport->send(place->second, std::move(frame)); });
}

void Node::deliver_local(Envelope&& envelope) {
  const auto actor = local_.find(envelope.to);
  if (actor == local_.end()) {
    log_warning("event=message_for_nobody to={} kind={}", to_string(envelope.to), kind_of(envelope.message));
    return;
  }
  hand_over(actor->second, std::move(envelope));
}

void Node::hand_over(std::uint32_t actor, Envelope&& envelope) {
  if (witness_ && !witness_(envelope)) return;
  meter_.see(envelope.message);
  if (board() != nullptr) board()->arrived(actor, precise_us());
  company_.deliver(actor, std::move(envelope));
}

void Node::receive(const Frame& frame) {
  std::string problem;
  auto decoded = decode(frame, problem);
  if (!decoded) {
    log_warning("event=frame_refused reason=\"{}\"", problem);
    return;
  }
  const auto link = links_.find(decoded->link.from_node);
  if (link == links_.end()) {
    log_info("event=frame_refused reason=\"node {} is not connected\"", decoded->link.from_node);
    return;
  }
  link->second.receive(std::move(*decoded), now_us_,
                       [this](Envelope&& envelope) { deliver_local(std::move(envelope)); });
}

bool Node::look() {
  looked_ = parts_.transport->poll(receive_);
  return looked_;
}

bool Node::turn(std::int64_t now_us, std::size_t messages_max) {
  now_us_ = now_us;
  if (board() != nullptr) board()->turn(now_us);
  if (page_.tick_us == 0) write_board();  // before anything can get stuck
  meter_.turn(parts_.device->usage(now_us), [this]() -> const NodeWaits& { return all_waits(); });
  bool busy = false;
  if (parts_.transport != nullptr) busy |= looked_ || look();
  looked_ = false;
  completions_.clear();
  parts_.device->take_completions(completions_);
  for (const Completion& c : completions_)
    hand_over(c.actor, Envelope{kNobody, addresses_[c.actor], SegmentDone{c.token}, c.id, c.cause, precise_us()});
  outcomes_.clear();
  if (parts_.disk != nullptr) parts_.disk->take_outcomes(outcomes_);
  for (DiskOutcome& o : outcomes_)
    hand_over(o.actor, numbered({kNobody, addresses_[o.actor], DiskDone{o.token, o.problem}}));
  verdicts_.clear();
  if (parts_.jury != nullptr) parts_.jury->take_outcomes(verdicts_);
  for (JuryOutcome& v : verdicts_)
    hand_over(v.actor, numbered({kNobody, addresses_[v.actor], JuryDone{v.token, v.verdict, v.problem}}));
  busy |= !completions_.empty() || !outcomes_.empty() || !verdicts_.empty();
  page_.finished += completions_.size();
  page_.disk_done += outcomes_.size();
  if (!completions_.empty()) page_.finished_us = now_us_;
  if (!outcomes_.empty()) page_.disk_us = now_us_;
  const bool tick = now_us_ - last_tick_us_ >= kTickUs;
  if (tick) {
    last_tick_us_ = now_us_;
    for (auto& [peer, link] : links_)
      link.tick(now_us_, [&, to = peer](Frame frame) { parts_.transport->send(to, std::move(frame)); });
  }
  busy |= company_.run(messages_max);
  if (tick) write_board();
  return busy;
}

// ---- The board ------------------------------------------------------------------------------------------------------

Company::Handler Node::watched(std::uint32_t actor, Company::Handler handler) {
  if (parts_.watch == nullptr) return handler;
  return [this, actor, handler = std::move(handler)](const Envelope& envelope) {
    const std::int64_t begin_us = precise_us();
    handling_ = envelope.id;
    if (board() != nullptr) board()->begin(actor, envelope, begin_us);
    handler(envelope);
    const std::int64_t end_us = precise_us();
    handling_ = 0;
    ++handled_;
    if (board() != nullptr) board()->end(actor, end_us - begin_us);
    if (journal() != nullptr) journal()->handled(envelope, begin_us, end_us);
  };
}

// Without a journal nobody asks for numbers.
Envelope Node::numbered(Envelope envelope) {
  if (journal() == nullptr) return envelope;
  envelope.id = journal()->next_id();
  envelope.cause = handling_;
  envelope.sent_us = precise_us();
  return envelope;
}

Completion Node::completion(std::uint32_t actor, std::uint64_t token) {
  if (board() != nullptr) board()->submitted(actor);
  return {actor, token, journal() == nullptr ? 0 : journal()->next_id(), handling_};
}

Memory Node::allocate(std::uint32_t actor, std::size_t size, Place place) {
  allocated_.at(actor) += size;
  return parts_.device->allocate(size, place);
}

Company::Handler Node::timed(Company::Handler handler) const {
  if (parts_.profile == nullptr) return handler;
  return [profile = parts_.profile, handler = std::move(handler)](const Envelope& envelope) {
    const std::int64_t begin_ns = profile->now_ns();
    handler(envelope);
    HandlerTime& time = profile->times[{envelope.to.role, kind_of(envelope.message)}];
    ++time.count;
    time.ns += profile->now_ns() - begin_ns;
  };
}

void Node::write_board() {
  if (board() == nullptr) return;
  const Usage usage = parts_.device->usage(now_us_);
  page_.node = id_;
  page_.incarnation = incarnation_;
  page_.tick_us = std::max<std::int64_t>(1, now_us_);
  page_.pending = parts_.device->pending();
  page_.ready = usage.ready;
  page_.disk_jobs = parts_.disk == nullptr ? 0 : parts_.disk->jobs();
  page_.actors_bytes = std::accumulate(allocated_.begin(), allocated_.end(), std::size_t{0});
  page_.payload_bytes = page_.payload_peak = 0;
  for (const PayloadPool* pool : {parts_.pool, parts_.device_pool}) {
    if (pool == nullptr) continue;
    page_.payload_bytes += pool->bytes_in_use();
    page_.payload_peak += pool->bytes_peak();
  }
  if (now_us_ - billed_us_ >= kBillUs) write_bill();
  page_.peers_count = 0;
  for (const auto& [peer, link] : links_)
    if (page_.peers_count < kBoardPeersMax) page_.peers[page_.peers_count++] = peer_of(peer, link);
  board()->publish(page_);
  for (std::uint32_t actor = 0; actor < addresses_.size(); ++actor) write_actor(actor);
}

void Node::write_actor(std::uint32_t actor) {
  waits_.clear();
  waits(actor, waits_);
  credits_.clear();
  const Teller& teller = tellers_[actor];
  teller.credits(credits_);
  const Address& self = addresses_[actor];
  Board::Over over;
  if (journal() != nullptr) over = [&](const Wait& wait) { journal()->waited(self, wait, now_us_); };
  board()->publish(actor, {self, teller.attempt(), teller.version(), allocated_[actor]}, waits_, credits_, now_us_,
                   over);
}

// By the device's clock: what its threads have spent tells when it began.
void Node::write_bill() {
  billed_us_ = now_us_;
  const Usage usage = parts_.device->usage(now_us_);
  const NodeBill told = bill(now_us_ - usage.total_us() / std::max(1, usage.threads), now_us_);
  for (std::size_t bin = 0; bin < kBins; ++bin) page_.bill_us[bin] = total_us(told.account, static_cast<Bin>(bin));
}

BoardPeer Node::peer_of(std::uint32_t node, const Link& link) {
  return {node,
          link.peer_incarnation(),
          link.heard_us(),
          static_cast<std::uint32_t>(link.unacknowledged()),
          static_cast<std::uint32_t>(link.early()),
          std::max<std::int64_t>(0, link.missing_since_us())};
}

void Node::close() {
  company_.close();
  page_.closed = 1;
  if (board() != nullptr) board()->publish(page_);
}

// ---- The bill -------------------------------------------------------------------------------------------------------

const NodeWaits& Node::all_waits() {
  for (std::uint32_t handle = 0; handle < addresses_.size(); ++handle) {
    Waits& own = all_waits_[addresses_[handle]];
    own.clear();
    waits(handle, own);
  }
  return all_waits_;
}

NodeBill Node::bill(std::int64_t since_us, std::int64_t now_us) {
  return meter_.bill(
      parts_.device->usage(now_us), [this]() -> const NodeWaits& { return all_waits(); }, since_us, now_us);
}

std::size_t Node::frames_owed() const {
  std::size_t owed = 0;
  for (const auto& [peer, link] : links_) owed += link.unacknowledged();
  return owed;
}

std::vector<std::pair<std::uint32_t, std::uint32_t>> Node::silent_peers(std::int64_t limit_us) const {
  std::vector<std::pair<std::uint32_t, std::uint32_t>> silent;
  for (const auto& [peer, link] : links_) {
    const bool missing = link.missing_since_us() >= 0 && now_us_ - link.missing_since_us() > limit_us;
    if (missing || now_us_ - link.heard_us() > limit_us) silent.emplace_back(peer, link.peer_incarnation());
  }
  return silent;
}

}  // namespace troupe
