#include "launcher/world.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "actors/metrics.h"
#include "actors/rules/placement.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "kernels/cuda/open.h"
#include "kernels/cuda/peer_copies.h"
#include "launcher/board_file.h"
#include "launcher/company.h"
#include "launcher/config.h"
#include "launcher/inspect/node_server.h"
#include "launcher/journal_file.h"
#include "launcher/jury.h"
#include "launcher/machine.h"
#include "launcher/payload_memory.h"
#include "launcher/slow_link.h"
#include "messages/peer_transport.h"
#include "messages/ucx.h"

namespace troupe {

struct World::Parts {
  std::string run_folder;
  std::int64_t device_began_us = 0;
  std::optional<BoardFile> board_file;
  std::optional<JournalFile> journal_file;
  std::optional<NodeWatch> watch;                // of both; none: nobody looks
  std::optional<PayloadPool> pool, device_pool;  // the second where device memory is memory of its own
  std::unique_ptr<MeasuredDevice> device;
  std::unique_ptr<Device> front;  // null: actors are given the device itself
  std::unique_ptr<Disk> disk;
  std::unique_ptr<Jury> jury;
  std::unique_ptr<Transport> transport;
  std::unique_ptr<Node> node;
  std::unique_ptr<Loop> loop;
  std::unique_ptr<NodeServer> server;  // null: nobody may ask
  std::vector<Address> here;
  HandlerProfile handlers{monotonic_ns, {}};
};

namespace {

constexpr Address kConductor{Role::conductor, 0};

bool may_carry(const Config& config, const char* way) {
  const std::string& wanted = config.layout.device_transport;
  return config.device.kind == "cuda" && (wanted == "auto" || wanted == way);
}

// Payloads in the device's memory may leave the process by UCX, unless the configuration keeps them from it.
UcxDevice carried_by_ucx(const Config& config, std::uint64_t name, Device& device, PayloadPool* device_pool) {
  if (device_pool == nullptr || !may_carry(config, "ucx")) return {};
  const Memory one = device.allocate(1, Place::device);
  return {device_pool, is_processors_memory(one.data), name};
}

std::unique_ptr<Transport> make_transport(const Config& config, PayloadPool& pool, const UcxDevice& device) {
  auto transport = make_ucx_transport({config.layout.transport, config.layout.interface}, pool, device);
  const LinkConfig& link = config.link;
  if (link.delay_ms <= 0 && link.gbits_per_second <= 0) return transport;
  return make_slow_link(std::move(transport), {std::llround(link.delay_ms * 1e6), link.gbits_per_second / 8});
}

bool may_copy_to_peers(const Config& config) { return config.layout.nodes > 1 && may_carry(config, "nccl"); }

// NCCL between this machine's GPUs; null: payloads leave without it.
std::unique_ptr<PeerCopies> peer_copies(const Config& config, std::uint32_t node) {
  if (!may_copy_to_peers(config)) return nullptr;
  std::string problem;
  auto copies = open_peer_copies(gpu_of_node(node), problem);
  if (copies == nullptr && config.layout.device_transport == "nccl")
    throw Error("layout.device_transport is \"nccl\", but NCCL can't be used: {}; install it, or set \"auto\"",
                problem);
  if (copies == nullptr) log_info("event=no_nccl reason=\"{}\"", problem);
  return copies;
}

std::unique_ptr<Transport> with_peer_copies(const Config& config, std::uint64_t name,
                                            std::unique_ptr<PeerCopies> copies, PayloadPool* device_pool,
                                            const std::shared_ptr<Parking>& parking,
                                            std::unique_ptr<Transport> transport) {
  if (copies == nullptr) return transport;
  const LimitsConfig& limits = config.limits;
  return make_peer_transport(std::move(transport), std::move(copies),
                             {.name = name,
                              .device_pool = device_pool,
                              .open_us = std::int64_t{1'000'000} * limits.start_seconds,
                              .still_us = std::int64_t{1000} * limits.silence_ms,
                              .now_us = monotonic_us,
                              .rests = [parking] { parking->clear(); }});
}

// By what its threads have spent: it may have taken a while to open it.
std::int64_t began_us(const Device& device) {
  const std::int64_t now_us = monotonic_us();
  const Usage usage = device.usage(now_us);
  return now_us - usage.total_us() / usage.threads;
}

// Told here, not when one is asked for.
void expect_room(const Config& config, const TaskSet& tasks) {
  constexpr std::uint64_t kLook = 16;
  for (std::uint64_t i = 0; i < kLook; ++i) {
    const TaskProblem problem = tasks.problems.problem(config.train.seed, Split::train, i);
    if (tasks.text.has_room(problem)) continue;
    throw Error(
        "train.sequence_length is {}: no room for a prompt of task {} ({} tokens) and an answer of grpo.completion_max "
        "({}) tokens; raise it, or choose lower task levels",
        config.train.sequence_length, problem.task, tasks.text.prompt(problem).size(), config.grpo.completion_max);
  }
}

}  // namespace

World::World(const Config& config, const WorldOptions& options) : config_(config), parts_(std::make_unique<Parts>()) {
  parts_->run_folder = options.run_folder;
  const auto places = place_actors(config);
  if (!options.run_folder.empty()) watch(places, options.node);
  NodeWatch* const watch = parts_->watch ? &*parts_->watch : nullptr;
  if (may_copy_to_peers(config)) expect_peer_copies();
  parts_->device = open_device(config, options.node, options.profiled, watch, options.together);
  parts_->device_began_us = began_us(*parts_->device);
  if (options.front) parts_->front = options.front(*parts_->device);
  Device* const device = parts_->front ? parts_->front.get() : parts_->device.get();
  const bool apart = config.device.kind == "cuda" || parts_->front;
  std::unique_ptr<PeerCopies> copies = peer_copies(config, options.node);
  const std::uint64_t name = (std::uint64_t{options.node} + 1) << 32 | options.incarnation;  // of this process
  const auto parking = std::make_shared<Parking>();
  const auto source = [&](Place place) {
    PayloadPool::Source memory = memory_of(*device, place);
    return copies == nullptr ? memory : Parking::parked(std::move(memory), parking);
  };
  parts_->pool.emplace(apart ? source(Place::shared) : PayloadPool::Source(PayloadPool::process_memory));
  if (apart) parts_->device_pool.emplace(source(Place::device), true);
  parts_->disk = make_posix_disk();
  if (options.node == 0 && options.tasks) parts_->jury = make_process_jury(jury_options(config));
  PayloadPool* const device_pool = parts_->device_pool ? &*parts_->device_pool : nullptr;
  if (config.layout.nodes > 1)
    parts_->transport =
        with_peer_copies(config, name, std::move(copies), device_pool, parking,
                         make_transport(config, *parts_->pool, carried_by_ucx(config, name, *device, device_pool)));
  parts_->node = std::make_unique<Node>(
      options.node, options.incarnation,
      NodeParts{.device = device,
                .disk = parts_->disk.get(),
                .pool = &*parts_->pool,
                .transport = parts_->transport.get(),
                .link = LinkLimits{.heartbeat_us = std::int64_t{1000} * config.limits.heartbeat_ms},
                .watch = watch,
                .now_us = monotonic_us,
                .profile = options.profiled ? &parts_->handlers : nullptr,
                .jury = parts_->jury.get(),
                .device_pool = device_pool});
  // Where threads wait for cores a loop that spins would take theirs, and be let in late for it.
  parts_->loop =
      std::make_unique<Loop>(*parts_->node, cores_enough(config, options.together) ? config.layout.spin_us : 0);
  for (const auto& [address, place] : places) {
    parts_->node->place(address, place);
    if (place != options.node) continue;
    parts_->here.push_back(address);
    add_actor(*parts_->node, config, options, address);
  }
  answer_inspectors(options.token);
}

void World::watch(const std::map<Address, std::uint32_t>& places, std::uint32_t node) {
  const std::vector<Address> here = actors_on(places, node);
  parts_->board_file.emplace(parts_->run_folder, node, here.size(), static_cast<std::size_t>(config_.device.threads),
                             config_.layout.nodes > 1 ? getppid() : getpid());
  if (config_.inspect.journal_mib > 0) parts_->journal_file.emplace(parts_->run_folder, node, config_.inspect);
  parts_->watch.emplace(&parts_->board_file->board(), parts_->journal_file ? &parts_->journal_file->journal() : nullptr,
                        here);
}

// What is ordered from outside is the supervisor's word; a message that somebody made marks the run.
void World::answer_inspectors(const std::string& token) {
  if (!parts_->watch || config_.inspect.listen.empty()) return;
  NodeServerOptions options;
  options.address = config_.inspect.listen;
  options.token = token;
  options.config_toml = config_to_toml(config_);
  options.board = parts_->board_file->bytes();
  if (parts_->journal_file) options.journal = parts_->journal_file->bytes();
  parts_->server = std::make_unique<NodeServer>(std::move(options));
  parts_->board_file->board().listens(parts_->server->port());
  parts_->loop->watch(parts_->server->orders_fd(), [this] {
    for (NodeServer::Order& order : parts_->server->take_orders()) obey(order);
  });
}

void World::obey(std::variant<Pause, Envelope>& order) {
  Node& node = *parts_->node;
  constexpr Address kSupervisor{Role::supervisor, 0};
  if (const auto* pause = std::get_if<Pause>(&order)) {
    if (node.is_here(kConductor)) node.post(kSupervisor, kConductor, *pause);
    return;
  }
  auto& envelope = std::get<Envelope>(order);
  if (!node.is_here(envelope.to)) return;
  const std::string said = fmt::format("a {} was injected into {}", kind_of(envelope.message), to_string(envelope.to));
  log_warning("event=injected note=\"{}\"", said);
  node.post(envelope.from, kSupervisor,
            Report{"tainted", nlohmann::json{{"kind", "tainted"}, {"sentence", said}}.dump()});
  node.post(envelope.from, envelope.to, std::move(envelope.message));
}

// Segments that are under way or waiting write to the actors' memory: they end first.
World::~World() {
  parts_->node->close();
  while (parts_->device->pending() > 0) usleep(200);
}

OpProfile World::op_profile() const { return parts_->device->profile(); }
const HandlerProfile& World::handler_profile() const { return parts_->handlers; }
void World::clear_profile() {
  parts_->device->clear_profile();
  parts_->handlers.times.clear();
}

void World::run(const std::function<void(const Report&)>& hear, const std::function<bool()>& done) {
  std::string problem;
  bool finished = false;
  parts_->node->set_uplink([&](const Envelope& envelope) {
    const auto* report = std::get_if<Report>(&envelope.message);
    if (report == nullptr || finished) return;
    hear(*report);
    if (report->kind == "problem" && problem.empty())
      problem = nlohmann::json::parse(report->json).at("sentence").get<std::string>();
    finished = report->kind == "finished";
  });
  parts_->loop->run([&] { return finished || !problem.empty() || (done && done()); });
  parts_->node->set_uplink([](const Envelope&) {});
  if (!problem.empty()) throw Error("{}", problem);
}

Node& World::node() { return *parts_->node; }
Loop& World::loop() { return *parts_->loop; }

NodeBill World::bill() {
  NodeBill bill = parts_->node->bill(parts_->device_began_us, monotonic_us());
  bill.memory_mib = peak_memory_mib();
  return bill;
}

std::string World::transport_address() const { return parts_->transport ? parts_->transport->local_address() : ""; }

void World::connect(std::uint32_t peer, std::uint32_t incarnation, const std::string& address) {
  parts_->node->connect(peer, incarnation, address, monotonic_us());
}

void World::recover(const Recover& recover) {
  for (const Address& address : parts_->here)
    if (address == kConductor) parts_->node->post({Role::supervisor, 0}, address, recover);
}

void World::stop(const std::string& reason) {
  for (const Address& address : parts_->here)
    if (address == kConductor) parts_->node->post({Role::supervisor, 0}, address, Stop{reason});
}

std::shared_ptr<const TaskSet> open_tasks(const Config& config) {
  if (!config.has_rollouts() && !config.has_answers()) return nullptr;
  auto tasks = std::make_shared<const TaskSet>(config);
  if (tasks->problems.left_out() > 0)
    log_warning("{} questions of task.files are left out: train.sequence_length ({}) has no room for them",
                tasks->problems.left_out(), config.train.sequence_length);
  expect_room(config, *tasks);
  return tasks;
}

}  // namespace troupe
