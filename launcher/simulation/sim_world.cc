#include "launcher/simulation/sim_world.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>

#include "actors/rules/placement.h"
#include "kernels/base/random.h"
#include "kernels/sim/unread_memory.h"
#include "launcher/company.h"
#include "launcher/payload_memory.h"

namespace troupe {

namespace {

constexpr int kTurnsMax = 10'000;  // of a node in one moment
constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
constexpr double kStands = 1e6;  // the pace of a thread that has no core
constexpr Address kSupervisor{Role::supervisor, 0}, kConductor{Role::conductor, 0},
    kCheckpointer{Role::checkpointer, 0};

enum class Mark : std::uint8_t { killed = 200, abandoned, restarted, started };  // in the log, beside message kinds

std::shared_ptr<std::byte> unread_payload(std::size_t size) { return {std::shared_ptr<void>(), unread_memory(size)}; }

// As the pool of a process takes it, and `blocks` knows; null: nobody asks.
PayloadPool::Source source_of(const std::shared_ptr<Blocks>& blocks) {
  if (!blocks) return PayloadPool::process_memory;
  return [blocks](std::size_t size) {
    const std::shared_ptr<std::byte> memory = PayloadPool::process_memory(size);
    blocks->add(memory.get(), size);
    return std::shared_ptr<std::byte>(memory.get(), [memory, blocks](std::byte* data) { blocks->remove(data); });
  };
}

std::uint64_t word_of(const Address& address) { return static_cast<std::uint64_t>(address.role) << 32 | address.index; }

}  // namespace

// One incarnation of a node with its parts. Declared in the order in which they must live: the node ends first.
struct SimWorld::Member {
  explicit Member(std::shared_ptr<Blocks> known) : blocks(std::move(known)) {}
  std::uint32_t node_id = 0, incarnation = 0, host = 0;
  bool abandoned = false, has_mail = false, stopped = false, hung = false;
  std::uint64_t choices = 0;
  std::int64_t began_us = 0;
  std::int64_t busy_until_us = 0, owed_ns = 0;  // of a loop whose turns take time
  std::vector<Address> here;
  std::shared_ptr<Blocks> blocks;  // may be null
  PayloadPool pool{source_of(blocks)};
  std::optional<PayloadPool> device_pool;  // behind a front, whose memory is memory of its own
  std::optional<PayloadPool> unread_pool;  // of a device without memory
  std::unique_ptr<SimDevice> device;
  std::unique_ptr<Device> front;
  std::unique_ptr<SimDisk> disk;
  std::unique_ptr<SimJury> jury;
  std::unique_ptr<Transport> transport;
  std::vector<std::byte> board_memory, journal_memory;
  std::optional<Board> board;
  std::optional<Journal> journal;
  std::optional<NodeWatch> watch;
  std::unique_ptr<Node> node;

  JournalPage journal_page(std::uint64_t most = std::numeric_limits<std::uint64_t>::max()) const {
    return *read_journal(journal_memory.data(), journal_memory.size(), 0, most);
  }
  BoardPage page() const { return read_board(board_memory.data(), board_memory.size()).value_or(BoardPage{}); }
  void add_disk_and_jury(const std::map<Address, std::uint32_t>& places, const Config& config,
                         const SimWorldOptions& options) {
    if (places.at(kCheckpointer) == node_id) {
      SimDiskOptions how = options.disk;
      how.root = options.run_folder;
      how.seed = random_word(options.seed, incarnation, 7);
      if (incarnation > 1) how.crash_at_primitive = 0;
      disk = std::make_unique<SimDisk>(how);
    }
    if (const auto judge = places.find({Role::judge, 0}); judge != places.end() && judge->second == node_id) {
      SimJuryOptions how = options.jury;
      how.seed = random_word(options.jury.seed, incarnation);
      how.rules = verify_rules(config);
      jury = std::make_unique<SimJury>(how);
    }
  }
  NodeParts parts(const SimWorldOptions& options) {
    return {.device = front ? front.get() : device.get(),
            .disk = disk.get(),
            .pool = &pool,
            .transport = transport.get(),
            .link = options.link,
            .watch = &*watch,
            .jury = jury.get(),
            .device_pool = device_pool ? &*device_pool : nullptr,
            .ops_pool = unread_pool ? &*unread_pool : nullptr,
            .ask_us = options.ask_us};
  }
  std::int64_t next_us(const SimNetwork& network) const {
    if (stopped) return kNever;
    if (has_mail) return std::min(busy_until_us, device->next_us());
    std::int64_t next = node->next_tick_us();
    if (disk) next = std::min(next, disk->next_us());
    if (jury) next = std::min(next, jury->next_us());
    next = std::min(next, network.next_us(node_id, incarnation));
    return std::min(device->next_us(), std::max(next, busy_until_us));
  }
};

SimWorld::SimWorld(const Config& config, SimWorldOptions options, Witness witness)
    : config_(config),
      options_(std::move(options)),
      witness_(std::move(witness)),
      network_(options_.network),
      bill_(config_, 0),
      tasks_(open_tasks(config_)) {
  const auto nodes = static_cast<std::uint32_t>(config_.layout.nodes);
  CHECK(options_.devices.size() == nodes, "{} devices for {} nodes", options_.devices.size(), nodes);
  incarnations_.assign(nodes, 1);
  network_.set_listener([this](const SimNetwork::End& to, std::int64_t at_us) {
    if (const auto seat = seats_.find(to); seat != seats_.end() && !members_[seat->second]->stopped)
      agenda_.not_later(seat->second, at_us);
  });
  for (std::uint32_t node = 0; node < nodes; ++node) add_member(node, 1);
  plan_all();
  if (!options_.introduced) return;
  for (auto& one : members_)
    for (auto& other : members_)
      if (one->node_id != other->node_id) introduce(*one, *other);
}

// ---- Who is next ----------------------------------------------------------------------------------------------------

void SimWorld::plan(std::size_t member) { agenda_.set(member, members_[member]->next_us(network_)); }

void SimWorld::plan_all() {
  agenda_.resize(members_.size());
  seats_.clear();
  for (std::size_t i = 0; i < members_.size(); ++i) {
    seats_[{members_[i]->node_id, members_[i]->incarnation}] = i;
    plan(i);
  }
}

SimWorld::~SimWorld() {
  for (auto& member : members_) member->node->close();
}

void SimWorld::watch(Member& m, const std::map<Address, std::uint32_t>& places) const {
  const std::vector<Address> here = actors_on(places, m.node_id);
  const auto servers = static_cast<std::size_t>(options_.devices[m.node_id].servers);
  m.board_memory.resize(board_size(here.size(), servers));
  m.board.emplace(m.board_memory.data(), here.size(), servers, BoardOwner{});
  if (options_.journal_records > 0) {
    m.journal_memory.resize(journal_size(options_.journal_records));
    m.journal.emplace(m.journal_memory.data(), options_.journal_records,
                      JournalOwner{.node = m.node_id, .number = m.incarnation});
  }
  m.watch.emplace(&*m.board, m.journal ? &*m.journal : nullptr, here);
}

// Every message that its actors handle or post passes here, and what they tell the supervisor.
void SimWorld::listen_to(Member* m) {
  const std::uint64_t key = random_key(options_.seed, fmt::format("choices of node {}.{}", m->node_id, m->incarnation));
  m->node->set_choice([m, key](std::size_t count) { return random_below(count, key, m->choices++); });
  m->node->set_uplink([this, m](const Envelope& envelope) {
    if (!m->abandoned) hear(envelope);
  });
  m->node->set_witness([this, m](const Envelope& envelope) {
    log(m->node_id | static_cast<std::uint64_t>(envelope.message.index()) << 32);
    log(word_of(envelope.from));
    log(word_of(envelope.to));
    ++messages_;
    if (witness_ && !m->abandoned) witness_(now_us_, m->node_id, envelope);
    if (const std::int64_t later_us = options_.delays ? options_.delays(envelope) : 0; later_us > 0) {
      events_.at(now_us_ + later_us, [this, envelope] { deliver(envelope); });
      return false;
    }
    return !(options_.loses && options_.loses(envelope));
  });
  if (options_.posted) m->node->set_posted(options_.posted);
  if (!options_.introduced)
    m->node->set_introducer([this, m](std::uint32_t other) {
      Member* const met = living(other);
      CHECK(met != nullptr, "node {} is down", other);
      introduce(*m, *met);
      introduce(*met, *m);
    });
}

void SimWorld::add_member(std::uint32_t node, std::uint32_t incarnation) {
  auto member = std::make_unique<Member>(options_.devices[node].blocks);
  Member* const m = member.get();
  std::tie(m->node_id, m->incarnation, m->began_us) = std::tuple(node, incarnation, now_us_);
  if (options_.hosts) m->host = node / options_.hosts->nodes_a_host;
  const auto places = place_actors(config_);
  watch(*m, places);
  SimDeviceOptions device = options_.devices[node];
  device.begin_us = now_us_;
  device.watch = &*m->watch;
  m->device = std::make_unique<SimDevice>(std::move(device));
  if (options_.front) {
    m->front = options_.front(*m->device);
    m->device_pool.emplace(memory_of(*m->front, Place::device), true);
  }
  if (!options_.devices[node].memory) m->unread_pool.emplace(unread_payload);
  m->transport =
      network_.attach(node, incarnation, m->blocks ? &m->pool : nullptr, m->device_pool ? &*m->device_pool : nullptr);
  m->add_disk_and_jury(places, config_, options_);
  m->node = std::make_unique<Node>(node, incarnation, m->parts(options_));
  listen_to(m);
  WorldOptions world;
  world.node = node;
  world.incarnation = incarnation;
  world.run_folder = options_.run_folder;
  world.corpus = options_.corpus;
  world.tasks = tasks_;
  for (const auto& [address, place] : places) {
    m->node->place(address, place);
    if (place != node) continue;
    m->here.push_back(address);
    add_actor(*m->node, config_, world, address);
  }
  members_.push_back(std::move(member));
}

void SimWorld::introduce(Member& one, Member& other) {
  one.node->forget(other.node_id);
  one.node->connect(other.node_id, other.incarnation, other.transport->local_address(), now_us_);
}

// As FNV-1a, a word at a time; the shift brings high bits down, where the product alone never would.
void SimWorld::log(std::uint64_t word) {
  for (const std::uint64_t part : {static_cast<std::uint64_t>(now_us_), word}) {
    hash_ = (hash_ ^ part) * 0x9E3779B97F4A7C15ULL;
    hash_ ^= hash_ >> 32;
  }
}

void SimWorld::hear(const Envelope& envelope) {
  const auto* report = std::get_if<Report>(&envelope.message);
  if (report == nullptr) return;
  reports_.push_back(*report);
  tell_bills();
  if (report->kind == "ready") bill_.ready(nlohmann::json::parse(report->json).at("version"));
  finished_ |= report->kind == "finished";
  if (report->kind == "problem" && problem_.empty())
    problem_ = nlohmann::json::parse(report->json).at("sentence").get<std::string>();
}

void SimWorld::start(const Recover& recover) {
  log(static_cast<std::uint64_t>(Mark::started) << 32 | recover.attempt);
  for (auto& member : members_) {
    const auto& here = member->here;
    if (member->abandoned || std::find(here.begin(), here.end(), kConductor) == here.end()) continue;
    member->node->post(kSupervisor, kConductor, recover);
    member->has_mail = true;
  }
  plan_all();
}

// ---- Time -----------------------------------------------------------------------------------------------------------

std::int64_t SimWorld::next_us() const {
  return std::max(std::min({events_.next_us(), agenda_.next_us(), network_.next_departure_us()}), now_us_);
}

void SimWorld::advance_parts(Member& member) {
  member.device->advance(now_us_);
  if (member.disk) member.disk->advance(now_us_);
  if (member.jury) member.jury->advance(now_us_);
}

void SimWorld::take_turns(Member& member) {
  member.has_mail = false;
  advance_parts(member);
  for (int turns = 0; member.node->turn(now_us_); ++turns) {
    CHECK(turns < kTurnsMax, "node {} comes to no rest at {} us: its actors post without end", member.node_id, now_us_);
    member.device->advance(now_us_);
  }
  advance_parts(member);
}

void SimWorld::turn(Member& member) {
  if (options_.hosts) {
    turn_timed(member);
    return share_cores(member.host);
  }
  take_turns(member);
  if (member.disk && member.disk->fell())
    events_.at(now_us_, [this, node = member.node_id] {
      if (is_up(node)) kill(node);
    });
}

// A loop that is still at its last turn leaves what came: compute threads go on beside it.
void SimWorld::turn_timed(Member& member) {
  const std::uint64_t finished = member.device->finished();
  member.device->advance(now_us_);
  member.has_mail |= member.device->finished() > finished;
  if (member.busy_until_us > now_us_ || wakes(member)) return;
  const std::int64_t begin_ns = thread_time_ns(), computed_ns = member.device->computed_ns();
  const std::uint64_t handled = member.node->handled();
  take_turns(member);
  if (member.node->handled() == handled) return;
  member.owed_ns += thread_time_ns() - begin_ns - (member.device->computed_ns() - computed_ns);
  const std::int64_t us = member.owed_ns / 1000;
  member.owed_ns %= 1000;
  member.busy_until_us = now_us_ + us;
  hold_up(member, us + std::llround(options_.hosts->switch_us));
}

std::vector<std::size_t> SimWorld::seats_of(std::uint32_t host) const {
  std::vector<std::size_t> seats;
  for (std::size_t i = 0; i < members_.size(); ++i)
    if (members_[i]->host == host) seats.push_back(i);
  return seats;
}

SimWorld::Host& SimWorld::host_at(std::uint32_t number) {
  CoresOptions options = options_.hosts->cores;
  options.owners = members_.size();
  return hosts_.try_emplace(number, Host{Cores(options)}).first->second;
}

// A loop without a turn under way slept; its turn is put off until it is awake.
bool SimWorld::wakes(Member& member) {
  if (member.busy_until_us == now_us_) return false;
  const HostOptions& hosts = *options_.hosts;
  const std::uint64_t place = 4 * std::uint64_t{member.node_id};
  const bool is_late =
      host_at(member.host).cores.crowded() && random_uniform(options_.seed, rounds_, place) < hosts.late_share;
  const double late = is_late ? hosts.late_us * random_uniform(options_.seed, rounds_, place + 1) : 0;
  member.busy_until_us = now_us_ + std::llround(hosts.wake_us + late);
  member.has_mail = true;
  return member.busy_until_us > now_us_;
}

// Where every core of its host computes, one of the segments there waits for the loop.
void SimWorld::hold_up(const Member& member, std::int64_t us) {
  if (!host_at(member.host).cores.all_busy()) return;
  std::vector<std::size_t> computing;
  for (const std::size_t seat : seats_of(member.host))
    if (host_at(member.host).cores.granted(seat) > 0) computing.push_back(seat);
  const std::uint64_t draw = random_word(options_.seed, rounds_, 3);
  const std::size_t seat = computing[draw % computing.size()];
  members_[seat]->device->hold_up(us, draw >> 32);
  plan(seat);
}

// Threads without a core stand still.
void SimWorld::share_cores(std::uint32_t number) {
  Host& host = host_at(number);
  Cores& cores = host.cores;
  const std::vector<std::size_t> seats = seats_of(number);
  for (const std::size_t seat : seats) cores.want(seat, members_[seat]->device->running(), now_us_);
  cores.share(now_us_);
  for (const std::size_t seat : seats) {
    SimDevice& device = *members_[seat]->device;
    const auto running = static_cast<double>(device.running()), granted = static_cast<double>(cores.granted(seat));
    if (device.set_pace(now_us_, running == granted ? 1 : granted > 0 ? running / granted : kStands)) plan(seat);
  }
  const std::int64_t next_us = cores.next_us(now_us_);
  if (next_us == kNever || next_us == host.sharing_us) return;
  host.sharing_us = next_us;
  events_.at(next_us, [this, number] { share_cores(number); });
}

// A moment comes with what happens from outside. Who has the first turn in it.
std::size_t SimWorld::begin_moment(std::int64_t at_us) {
  now_us_ = at_us;
  network_.set_time(now_us_);
  if (events_.next_us() <= now_us_) {
    events_.run(now_us_);
    plan_all();
  }
  return members_.empty() ? 0 : random_below(members_.size(), options_.seed, rounds_++);
}

// Every node with something to do, in a drawn order.
void SimWorld::step(std::int64_t at_us) {
  const std::size_t first = begin_moment(at_us);
  const auto pass = [&](std::size_t from, std::size_t until) {
    for (std::size_t i = agenda_.due(from, now_us_); i < until; i = agenda_.due(i + 1, now_us_)) {
      turn(*members_[i]);
      plan(i);
    }
  };
  pass(first, members_.size());
  pass(0, first);
}

// The first node with something to do has a turn of one message; the next to have one is drawn anew.
bool SimWorld::advance(std::int64_t limit_us) {
  for (std::int64_t at_us = next_us(); at_us <= limit_us; at_us = next_us()) {
    const std::size_t first = begin_moment(at_us);
    std::size_t seat = agenda_.due(first, now_us_);
    if (seat >= members_.size()) seat = agenda_.due(0, now_us_);
    if (seat < members_.size()) {
      Member& member = *members_[seat];
      const std::uint64_t before = member.node->handled();
      member.has_mail = false;
      advance_parts(member);
      member.has_mail = member.node->turn(now_us_, 1);
      advance_parts(member);
      plan(seat);
      if (member.node->handled() > before) return true;
    }
  }
  return false;
}

void SimWorld::show() {
  for (const auto& member : members_) member->node->show();
}

bool SimWorld::deliver(const Envelope& envelope) {
  const auto places = place_actors(config_);
  const auto place = places.find(envelope.to);
  Member* const member = place == places.end() ? nullptr : living(place->second);
  if (member == nullptr) return false;
  member->node->deliver(envelope);
  member->has_mail = true;
  plan_all();
  return true;
}

bool SimWorld::run_until(const std::function<bool()>& done, std::int64_t limit_us) {
  while (!done()) {
    const std::int64_t at_us = next_us();
    if (at_us > limit_us) return false;
    step(at_us);
  }
  return true;
}

bool SimWorld::settle(std::int64_t limit_us) {
  return run_until([&] { return owed().empty(); }, limit_us);
}

// ---- Lives and deaths -----------------------------------------------------------------------------------------------

SimWorld::Member* SimWorld::living(std::uint32_t node) const {
  for (const auto& member : members_)
    if (member->node_id == node && !member->abandoned) return member.get();
  return nullptr;
}

bool SimWorld::is_up(std::uint32_t node) const { return living(node) != nullptr; }

void SimWorld::kill(std::uint32_t node) {
  Member* const member = living(node);
  CHECK(member != nullptr, "node {} is down already", node);
  log(static_cast<std::uint64_t>(Mark::killed) << 32 | node);
  bill_.tell(node, member->node->bill(member->began_us, now_us_));
  bill_.lost(node);
  const std::uint64_t key = random_key(options_.seed, fmt::format("death of node {}.{}", node, member->incarnation));
  network_.detach(node, member->incarnation, static_cast<double>(random_below(3, key, 0)) / 2);
  segments_of_dead_ += member->device->finished();
  graves_.push_back(member->page());
  graves_.back().life = Life::dead;
  if (member->journal) journals_of_dead_.push_back(member->journal_page());
  member->node->close();
  if (member->disk) member->disk->crash();
  std::erase_if(members_, [&](const auto& one) { return one.get() == member; });
  plan_all();
}

void SimWorld::abandon(std::uint32_t node) {
  Member* const member = living(node);
  CHECK(member != nullptr, "node {} is down already", node);
  log(static_cast<std::uint64_t>(Mark::abandoned) << 32 | node);
  member->abandoned = true;
  bill_.tell(node, member->node->bill(member->began_us, now_us_));
  bill_.lost(node);
}

void SimWorld::restart(std::uint32_t node) {
  CHECK(!is_up(node), "node {} is up", node);
  log(static_cast<std::uint64_t>(Mark::restarted) << 32 | node);
  add_member(node, ++incarnations_[node]);
  Member& fresh = *members_.back();
  for (auto& other : members_) {
    if (other->node_id == node || other->abandoned) continue;
    introduce(*other, fresh);
    introduce(fresh, *other);
  }
  plan_all();
}

void SimWorld::stop(std::uint32_t node) {
  Member* const member = living(node);
  CHECK(member != nullptr, "node {} is down already", node);
  member->stopped = true;
  plan_all();
}

void SimWorld::hang(std::uint32_t node, std::uint32_t actor, const Envelope& envelope) {
  stop(node);
  living(node)->hung = true;
  living(node)->board->begin(actor, envelope, now_us_);
}

// ---- Accounts -------------------------------------------------------------------------------------------------------

std::vector<BoardPage> SimWorld::pages() const {
  std::vector<BoardPage> pages = graves_;
  for (const auto& member : members_) {
    if (member->abandoned) continue;
    pages.push_back(member->page());
    if (member->stopped && !member->hung) pages.back().life = Life::stopped;
    std::erase_if(pages, [&](const BoardPage& page) {
      return page.node.node == member->node_id && page.node.incarnation < member->incarnation;
    });
  }
  return pages;
}

std::vector<JournalPage> SimWorld::journals(std::uint64_t most) const {
  std::vector<JournalPage> pages = journals_of_dead_;
  for (const auto& member : members_)
    if (member->journal) pages.push_back(member->journal_page(most));
  return pages;
}

std::uint64_t SimWorld::segments() const {
  std::uint64_t sum = segments_of_dead_;
  for (const auto& member : members_) sum += member->device->finished();
  return sum;
}

const SimDisk* SimWorld::disk() const {
  for (const auto& member : members_)
    if (member->disk && !member->abandoned) return member->disk.get();
  return nullptr;
}

void SimWorld::tell_bills() {
  const auto tell = [&](bool leads) {
    for (const auto& member : members_)
      if (!member->abandoned && (member->node_id == 0) == leads)
        bill_.tell(member->node_id, member->node->bill(member->began_us, now_us_));
  };
  tell(false);
  tell(true);  // the conductor's node last: what it waited for is what others waited for meanwhile
}

nlohmann::json SimWorld::bill() {
  tell_bills();
  return bill_.line(true, now_us_);
}

// A front's own memory is its affair: of what lies there the payloads alone are counted.
std::map<std::uint32_t, SimWorld::BytesPeak> SimWorld::bytes_peak() const {
  std::map<std::uint32_t, BytesPeak> peak;
  for (const auto& member : members_) {
    if (member->abandoned) continue;
    const std::size_t stays = member->device_pool ? member->device_pool->asked_peak() : 0;
    peak[member->node_id] = {member->device->bytes_peak(Place::device) + stays,
                             member->device->bytes_peak(Place::shared) + member->pool.asked_peak()};
  }
  return peak;
}

std::vector<std::size_t> SimWorld::bytes_resident() const {
  std::vector<std::size_t> bytes;
  for (const auto& member : members_) bytes.push_back(member->blocks ? member->blocks->resident() : 0);
  return bytes;
}

std::size_t SimWorld::scratch_bytes(std::uint32_t node) const { return members_.at(node)->device->scratch_bytes(); }

std::uint64_t SimWorld::journal_records(std::uint32_t node) const { return members_.at(node)->journal_page(0).written; }

bool SimWorld::at_rest() const {
  for (const auto& m : members_)
    if (!m->abandoned && (m->has_mail || m->device->pending() > 0 || (m->disk && m->disk->jobs() > 0))) return false;
  return network_.under_way() == 0;
}

std::string SimWorld::owed() const {
  std::string all;
  for (const auto& member : members_) {
    if (member->abandoned) continue;
    std::string own;
    if (const auto frames = member->node->frames_owed(); frames > 0)
      own += fmt::format(", {} frames unacknowledged", frames);
    if (const auto segments = member->device->pending(); segments > 0)
      own += fmt::format(", {} segments ({} running)", segments, member->device->running());
    if (member->disk && member->disk->jobs() > 0) own += fmt::format(", {} disk jobs", member->disk->jobs());
    if (member->jury && member->jury->jobs() > 0) own += fmt::format(", {} verdicts", member->jury->jobs());
    if (member->has_mail) own += ", mail";
    if (!own.empty()) all += fmt::format("{}node {}: {}", all.empty() ? "" : "; ", member->node_id, own.substr(2));
  }
  return all;
}

}  // namespace troupe
