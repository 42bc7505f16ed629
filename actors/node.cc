#include "actors/node.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <ctime>

#include "kernels/base/log.h"

namespace troupe {

namespace {
constexpr std::size_t kMessagesATurn = 4096;
constexpr std::int64_t kTickUs = 50'000;
constexpr std::int64_t kLookUs = 5'000;
constexpr Address kNobody{Role::supervisor, 0};
}  // namespace

void Context::post(const Address& to, Message message) const { node_->post(self_, to, std::move(message)); }
void Context::submit(const SegmentKey& key, std::vector<Op> ops, std::uint64_t token) const {
  node_->parts().device->submit(Segment{key, std::move(ops), Completion{handle_, token}});
}
Device& Context::device() const { return *node_->parts().device; }
Disk& Context::disk() const { return *node_->parts().disk; }
PayloadPool& Context::pool() const { return *node_->parts().pool; }
std::int64_t Context::now_us() const { return node_->now_us(); }

Node::Node(std::uint32_t id, std::uint32_t incarnation, NodeParts parts)
    : id_(id), incarnation_(incarnation), parts_(parts) {
  epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  CHECK(epoll_fd_ >= 0, "epoll_create1 failed");
  const auto nothing = [] {};
  if (parts_.device->completion_fd() >= 0) watch(parts_.device->completion_fd(), nothing);
  if (parts_.disk != nullptr && parts_.disk->outcome_fd() >= 0) watch(parts_.disk->outcome_fd(), nothing);
  if (parts_.transport != nullptr) watch(parts_.transport->wake_fd(), nothing);
  read_clock();
}

Node::~Node() { ::close(epoll_fd_); }

void Node::connect(std::uint32_t node, std::uint32_t incarnation, const std::string& transport_address) {
  parts_.transport->connect(node, transport_address);
  links_.insert_or_assign(node, Link(id_, incarnation_, node, incarnation, LinkLimits{}));
}

void Node::post(const Address& from, const Address& to, Message message) {
  Envelope envelope{from, to, std::move(message)};
  if (local_.contains(to)) return deliver_local(std::move(envelope));
  const auto place = directory_.find(to);
  if (place == directory_.end() || place->second == id_) {
    CHECK(uplink_, "{} lives nowhere ({} from {})", to_string(to), kind_of(envelope.message), to_string(from));
    return uplink_(envelope);
  }
  const auto link = links_.find(place->second);
  CHECK(link != links_.end(), "no link to node {} of {}", place->second, to_string(to));
  link->second.send(envelope, now_us_, [&](Frame frame) { parts_.transport->send(place->second, std::move(frame)); });
}

void Node::deliver_local(Envelope envelope) {
  const auto actor = local_.find(envelope.to);
  if (actor == local_.end()) {
    log_warning("event=message_for_nobody to={} kind={}", to_string(envelope.to), kind_of(envelope.message));
    return;
  }
  company_.deliver(actor->second, std::move(envelope));
}

void Node::receive(Frame frame) {
  std::string problem;
  auto decoded = decode(frame, problem);
  if (!decoded) {
    log_warning("event=frame_refused reason=\"{}\"", problem);
    return;
  }
  const auto link = links_.find(decoded->link.from_node);
  if (link == links_.end()) {
    log_warning("event=frame_refused reason=\"unknown node {}\"", decoded->link.from_node);
    return;
  }
  link->second.receive(std::move(*decoded), now_us_, [&](Envelope envelope) { deliver_local(std::move(envelope)); });
}

void Node::watch(int fd, std::function<void()> readable) {
  watched_[fd] = std::move(readable);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  CHECK(epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) == 0, "can't watch descriptor {}", fd);
}

void Node::read_clock() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  now_us_ = static_cast<std::int64_t>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1000;
}

bool Node::turn() {
  read_clock();
  bool busy = false;
  if (parts_.transport != nullptr) busy |= parts_.transport->poll([&](Frame frame) { receive(std::move(frame)); });
  completions_.clear();
  parts_.device->take_completions(completions_);
  for (const Completion& c : completions_)
    company_.deliver(c.actor, Envelope{kNobody, addresses_[c.actor], SegmentDone{c.token}});
  outcomes_.clear();
  if (parts_.disk != nullptr) parts_.disk->take_outcomes(outcomes_);
  for (DiskOutcome& o : outcomes_)
    company_.deliver(o.actor, Envelope{kNobody, addresses_[o.actor], DiskDone{o.token, o.problem}});
  busy |= !completions_.empty() || !outcomes_.empty();
  if (now_us_ - last_tick_us_ > kTickUs) {
    last_tick_us_ = now_us_;
    for (auto& [peer, link] : links_)
      link.tick(now_us_, [&, to = peer](Frame frame) { parts_.transport->send(to, std::move(frame)); });
  }
  busy |= company_.run(kMessagesATurn);
  return busy;
}

bool Node::sleep(int milliseconds) {
  std::array<epoll_event, 16> events{};
  const int ready = epoll_wait(epoll_fd_, events.data(), static_cast<int>(events.size()), milliseconds);
  for (int i = 0; i < ready; ++i) {
    const auto watcher = watched_.find(events[static_cast<std::size_t>(i)].data.fd);
    if (watcher != watched_.end()) watcher->second();
  }
  return ready > 0;
}

void Node::run(const std::function<bool()>& done) {
  while (!done()) {
    if (turn()) {
      if (now_us_ - last_look_us_ > kLookUs) {
        last_look_us_ = now_us_;
        sleep(0);  // the watched descriptors are looked at even when the node is never idle
      }
      continue;
    }
    if (done()) return;
    if (parts_.transport != nullptr && !parts_.transport->arm()) continue;
    sleep(static_cast<int>(kTickUs / 1000));
  }
}

}  // namespace troupe
