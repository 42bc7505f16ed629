// Payloads in device memory between nodes: by UCX, from GPU to GPU, and joined with their frames. Device memory is the
// processor's here, or says that it is another's.
#include <sys/socket.h>

#include <atomic>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "kernels/base/log.h"
#include "kernels/cuda/peer_copies.h"
#include "launcher/slow_link.h"
#include "messages/in_process.h"
#include "messages/peer_transport.h"
#include "messages/pieces.h"
#include "messages/sim_network.h"
#include "messages/ucx_report.h"
#include "tests/support/two_ends.h"
#include "tests/support/two_processes.h"

#include "tests/support/catch.h"

using namespace troupe;

namespace {

// A process with a UCX transport whose device's memory is the processor's, or says that it isn't.
ProcessBody device_process(std::uint32_t node, const UcxOptions& options, bool is_host,
                           const std::function<std::string(Transport&, Pools&)>& body) {
  return [=](int socket) -> std::string {
    Pools pools;
    auto transport = make_ucx_transport(options, pools.shared, {&pools.device, is_host, node + 1});
    transport->connect(1 - node, heard_from(options, swap_strings(socket, transport->local_address())));
    std::string problem = body(*transport, pools);
    transport.reset();
    if (problem.empty() && pools.shared.bytes_in_use() + pools.device.bytes_in_use() > 0)
      problem = "payloads are still held at the end";
    return problem;
  };
}

// GPUs of two nodes of this process: a way is a meeting of two ends, and a transfer a copy when both have started it.
struct Gpus {
  struct Way;
  std::mutex mutex;
  std::map<PeerCopies::Id, std::array<Way*, 2>> ways;
  char made = 0;
  bool opens = true, moves = true, closes = true;
  std::atomic<std::size_t> copied = 0, living = 0;
};

struct Gpus::Way final : PeerWay {
  Way(Gpus& all, const PeerCopies::Id& own, bool is_sender) : gpus(all), id(own), sends(is_sender) {
    const std::lock_guard lock(gpus.mutex);
    ++gpus.living;
    gpus.ways[id][sends ? 0 : 1] = this;
  }
  ~Way() override {
    const std::lock_guard lock(gpus.mutex);
    --gpus.living;
    gpus.ways[id][sends ? 0 : 1] = nullptr;
  }
  void start(const std::vector<PeerPiece>& pieces) override {
    const std::lock_guard lock(gpus.mutex);
    started.push_back(pieces);
  }
  std::uint64_t poll() override {
    const std::lock_guard lock(gpus.mutex);
    Way* const other = gpus.ways[id][sends ? 1 : 0];
    if (now == State::opening && gpus.opens && other != nullptr) now = State::open;
    const bool both = now == State::open && other != nullptr && other->now == State::open;
    if (both && gpus.moves && !started.empty() && !other->started.empty())
      sends ? copy_to(*other) : other->copy_to(*this);
    return over;
  }
  void copy_to(Way& to) {
    const std::vector<PeerPiece> from = started.front(), into = to.started.front();
    const auto fits = [](const PeerPiece& a, const PeerPiece& b) { return a.size == b.size; };
    if (!std::equal(from.begin(), from.end(), into.begin(), into.end(), fits)) {
      now = to.now = State::broken;
      return;
    }
    for (std::size_t i = 0; i < from.size(); ++i) {
      std::memcpy(into[i].data, from[i].data, from[i].size);
      gpus.copied += from[i].size;
    }
    started.pop_front();
    to.started.pop_front();
    ++over;
    ++to.over;
  }
  State state() const override { return now == State::closed && !gpus.closes ? State::broken : now; }
  const std::string& problem() const override { return words; }
  void abort() override {
    const std::lock_guard lock(gpus.mutex);
    now = State::closed;
    started.clear();
  }

  Gpus& gpus;
  const PeerCopies::Id id;
  const bool sends;
  std::deque<std::vector<PeerPiece>> started;
  std::uint64_t over = 0;
  State now = State::opening;
  const std::string words = "sizes differ";
};

class FakeCopies final : public PeerCopies {
 public:
  FakeCopies(Gpus& gpus, char gpu) : gpus_(gpus), gpu_{gpu} {}
  GpuName gpu() const override { return gpu_; }
  Id make_id() override {
    const std::lock_guard lock(gpus_.mutex);
    return {++gpus_.made};
  }
  std::unique_ptr<PeerWay> open(const Id& id, bool sends) override {
    return std::make_unique<Gpus::Way>(gpus_, id, sends);
  }

 private:
  Gpus& gpus_;
  const GpuName gpu_;
};

// Two nodes of one machine, each with a GPU of its own, in a time that stands until it is set.
struct TwoGpus {
  explicit TwoGpus(const InProcessFaults& faults = {}, char second = 2) {
    auto below = make_in_process_transports(2, faults);
    for (std::uint32_t node = 0; node < 2; ++node) {
      PeerTransportOptions options;
      options.name = node + 1;
      options.device_pool = &pools[node].device;
      options.open_us = 1000;
      options.still_us = 500;
      options.now_us = [this] { return now_us.load(); };
      ends[node] = make_peer_transport(std::move(below[node]),
                                       std::make_unique<FakeCopies>(gpus, node == 0 ? char{1} : second), options);
    }
    for (std::uint32_t node = 0; node < 2; ++node) ends[node]->connect(1 - node, ends[1 - node]->local_address());
  }
  // Whoever waits for two seconds of it at the end must see it pass.
  ~TwoGpus() {
    ends[0]->forget(1);
    ends[1]->forget(0);
    gpus.closes = true;
  }
  std::size_t poll() {
    std::size_t came = 0;
    for (auto& end : ends) end->poll([&](const Frame&) { ++came; });
    return came;
  }
  void poll_often() {
    for (int i = 0; i < 10; ++i) poll();
  }
  Frame with_piece(std::size_t size) { return numbered(1, pools[0].device.take(size)); }

  std::atomic<std::int64_t> now_us = 1;
  Gpus gpus;
  std::array<Pools, 2> pools;
  std::array<std::unique_ptr<Transport>, 2> ends;
};

}  // namespace

TEST_CASE("payloads in device memory come to the other process's device memory over UCX, whatever their size",
          "[transport][ucx][device]") {
  for (const UcxOptions& way : kWays) {
    INFO("tls " << way.tls << ", interface " << way.interface);
    const auto body = [](std::uint32_t node) {
      return [node](Transport& transport, Pools& pools) -> std::string {
        if (!transport.carries_device_memory(1 - node)) return "it carries none";
        if (transport.carries_device_memory(2)) return "it carries some to nobody";
        const std::string problem = tell_and_listen(node, transport, 0.5);
        return problem.empty() && pools.device.bytes_peak() == 0 ? "nothing came to device memory" : problem;
      };
    };
    CHECK(run_two_processes(device_process(0, way, true, body(0)), device_process(1, way, true, body(1))) ==
          std::array{0, 0});
  }
}

TEST_CASE("where one end's UCX moves no CUDA memory, none is carried, and the rest is", "[transport][ucx][device]") {
  const auto body = [](std::uint32_t node) {
    return [node](Transport& transport, Pools&) -> std::string {
      // Debian's UCX has no CUDA; another may.
      const std::vector<std::string> types = ask_ucx().memory_types;
      const bool has_cuda = std::find(types.begin(), types.end(), "cuda") != types.end();
      if (transport.carries_device_memory(1 - node) && !has_cuda) return "it carries some";
      return tell_and_listen(node, transport);
    };
  };
  for (const UcxOptions& way : kWays)
    CHECK(run_two_processes(device_process(0, way, false, body(0)), device_process(1, way, true, body(1))) ==
          std::array{0, 0});
}

TEST_CASE("a process outlives a peer that was killed with payloads in device memory under way",
          "[transport][ucx][device]") {
  const auto survivor = [](const UcxOptions& way) -> ProcessBody {
    return [way](int socket) -> std::string {
      Pools pools;
      auto transport = make_ucx_transport(way, pools.shared, {&pools.device, true, 1});
      transport->connect(1, heard_from(way, swap_strings(socket, transport->local_address())));
      const auto send = [&](std::uint64_t first, std::uint64_t last) {
        for (std::uint64_t i = first; i <= last; ++i) {
          transport->send(1, numbered(i, pools.device.take(i % 2 == 0 ? std::size_t{1} << 20 : 100)));
          transport->poll([](const Frame&) {});
        }
      };
      send(1, 50);
      char byte = 0;
      while (::recv(socket, &byte, 1, MSG_DONTWAIT) < 0) transport->poll([](const Frame&) {});
      for (int i = 0; i < 100; ++i) transport->poll([](const Frame&) {});
      send(51, 60);
      transport->forget(1);
      if (transport->carries_device_memory(1)) return "it carries some to a forgotten peer";
      send(61, 62);  // dropped
      const auto before = Clock::now();
      transport.reset();
      return Clock::now() - before > std::chrono::seconds(5) ? "the end took more than five seconds" : "";
    };
  };
  const auto victim = [](Transport& transport, Pools&) -> std::string {
    for (int received = 0; received == 0;) transport.poll([&](const Frame&) { ++received; });
    ::kill(::getpid(), SIGKILL);
    return {};
  };
  for (const UcxOptions& way : kWays) {
    INFO("tls " << way.tls);
    CHECK(run_two_processes(survivor(way), device_process(1, way, true, victim)) == std::array{0, SIGKILL});
  }
}

TEST_CASE("payloads on a device that the nodes of one process share pass as they are, over a slow link too",
          "[transport][device]") {
  CHECK_FALSE(make_in_process_transports(2)[0]->carries_device_memory(1));
  auto transports = make_in_process_transports(2, {}, true);
  CHECK(transports[0]->carries_device_memory(1));
  CHECK_FALSE(transports[0]->carries_device_memory(2));
  std::array<std::string, 2> problems;
  std::thread other([&] { problems[1] = tell_and_listen(1, *transports[1], 0.5); });
  problems[0] = tell_and_listen(0, *transports[0], 0.5);
  other.join();
  CHECK(problems == std::array<std::string, 2>{});
  Pools pools;
  auto slow = make_slow_link(std::move(transports[0]), {.delay_ns = 100'000});
  CHECK(slow->carries_device_memory(1));
  CHECK_FALSE(slow->carries_device_memory(2));
  slow->send(1, numbered(1, pools.device.take(100)));
  std::vector<Frame> came;
  while (came.empty()) {
    slow->poll([](const Frame&) {});
    transports[1]->poll([&](Frame frame) { came.push_back(std::move(frame)); });
  }
  CHECK((came[0].device.size() == 1 && came[0].device[0].on_device));
}

TEST_CASE("a frame and its pieces are joined once, in whatever order they come", "[transport][device]") {
  PayloadPool pool(PayloadPool::process_memory, true);
  const auto piece = [&](std::size_t size) { return pool.take(size); };
  std::vector<int> order{0, 1, 2, 3};  // the frame, and pieces 0 to 2
  do {
    PieceJoiner joiner;
    std::vector<Frame> whole;
    for (const int one : order) {
      Frame frame{.header = FrameHeader(5, std::byte{7}), .payloads = {}};
      write_note(frame, {.sender = 9, .number = 4, .pieces = 3});
      const auto note = take_note(frame);
      REQUIRE((note && note->sender == 9 && note->number == 4 && frame.header == FrameHeader(5, std::byte{7})));
      auto made = one == 0
                      ? joiner.add(*note, frame)
                      : joiner.add(9, 4, static_cast<std::uint64_t>(one - 1), piece(static_cast<std::size_t>(one)));
      CHECK_FALSE(joiner.add(8, 4, 0, piece(1)));  // another sender's
      CHECK_FALSE(joiner.add(9, 4, 3, piece(1)));  // past the frame's, or a lone piece of another
      if (made) whole.push_back(std::move(*made));
    }
    REQUIRE(whole.size() == 1);
    REQUIRE(whole[0].device.size() == 3);
    for (std::size_t i = 0; i < 3; ++i) CHECK(whole[0].device[i].size == i + 1);
    joiner.forget(8);
    joiner.forget(9);
    CHECK(joiner.waiting() == 0);
    CHECK_FALSE(joiner.add(9, 5, 0, piece(1)));
    CHECK(joiner.waiting() == 0);
  } while (std::next_permutation(order.begin(), order.end()));
  Frame none{.header = FrameHeader(10, std::byte{0}), .payloads = {}};
  CHECK_FALSE(take_note(none));
  CHECK(pool.bytes_in_use() == 0);
}

TEST_CASE("payloads go from GPU to GPU in the order of sending, whatever becomes of the frames' order",
          "[transport][device][peers]") {
  for (const double reorder : {0.0, 0.5}) {
    TwoGpus two({.seed = 3, .reorder = reorder});
    CHECK_FALSE(two.ends[0]->carries_device_memory(1));  // until the ways are open
    two.poll_often();
    CHECK((two.ends[0]->carries_device_memory(1) && two.ends[1]->carries_device_memory(0)));
    CHECK_FALSE(two.ends[0]->carries_device_memory(2));
    std::array<std::string, 2> problems;
    std::thread other([&] { problems[1] = tell_and_listen(1, *two.ends[1], 0.5); });
    problems[0] = tell_and_listen(0, *two.ends[0], 0.5);
    other.join();
    CHECK(problems == std::array<std::string, 2>{});
    two.poll_often();
    CHECK(two.gpus.copied > std::size_t{10} << 20);
    CHECK(two.pools[0].device.bytes_peak() > 0);
    CHECK(two.pools[0].device.bytes_in_use() + two.pools[1].device.bytes_in_use() == 0);
    CHECK((two.ends[0]->arm() && two.ends[1]->arm()));
  }
}

TEST_CASE("two nodes on one GPU have no way between them", "[transport][device][peers]") {
  TwoGpus two({}, 1);
  two.poll_often();
  CHECK_FALSE(two.ends[0]->carries_device_memory(1));
  CHECK(two.gpus.living == 0);
}

TEST_CASE("a way that never opens is left in time, and the frames go on below", "[transport][device][peers]") {
  TwoGpus two;
  two.gpus.opens = false;
  two.ends[0]->send(1, numbered(1, two.pools[0].shared.take(100)));
  CHECK(two.poll() == 1);
  two.poll_often();
  CHECK(two.gpus.living == 4);
  CHECK_FALSE(two.ends[0]->carries_device_memory(1));
  two.now_us = 1002;
  two.poll_often();
  CHECK(two.gpus.living == 0);
  two.gpus.opens = true;
  two.ends[0]->send(1, numbered(2, two.pools[0].shared.take(100)));
  CHECK(two.poll() == 1);
  CHECK_FALSE(two.ends[0]->carries_device_memory(1));
}

TEST_CASE("where a transfer stands still both ends give their peer up, and nothing goes there any more",
          "[transport][device][peers]") {
  TwoGpus two;
  two.poll_often();
  two.now_us = 1000;
  two.gpus.moves = false;
  two.ends[0]->send(1, two.with_piece(100));
  CHECK(two.poll() == 0);
  CHECK_FALSE((two.ends[0]->arm() || two.ends[1]->arm()));  // there is something to look for
  two.now_us = 1500;
  two.poll_often();
  CHECK((two.gpus.living == 4 && two.ends[0]->carries_device_memory(1)));
  two.now_us = 1501;
  two.poll_often();
  CHECK(two.gpus.living == 0);
  for (const std::uint32_t node : {0U, 1U}) {
    CHECK_FALSE(two.ends[node]->carries_device_memory(1 - node));
    two.ends[node]->send(1 - node, numbered(2, two.pools[node].shared.take(100)));
  }
  CHECK(two.poll() == 0);
  CHECK(two.pools[0].device.bytes_in_use() + two.pools[1].device.bytes_in_use() == 0);
}

TEST_CASE("a transfer that waited for none has its own time to end", "[transport][device][peers]") {
  TwoGpus two;
  two.poll_often();
  for (const std::int64_t now_us : {5000, 10'000, 15'000}) {
    two.now_us = now_us;
    two.ends[0]->send(1, two.with_piece(100));
    CHECK(two.poll() + two.poll() == 1);
    two.poll_often();
  }
  CHECK(two.gpus.living == 4);
}

TEST_CASE("what a forgotten peer had under way is held until nobody touches it, and given back then",
          "[transport][device][peers]") {
  TwoGpus two;
  two.poll_often();
  two.gpus.moves = two.gpus.closes = false;
  two.ends[0]->send(1, two.with_piece(100));
  two.poll_often();
  for (const std::uint32_t node : {0U, 1U}) two.ends[node]->forget(1 - node);
  two.poll_often();
  CHECK((two.pools[0].device.bytes_in_use() > 0 && two.pools[1].device.bytes_in_use() > 0));
  two.gpus.closes = true;
  two.poll_often();
  CHECK(two.pools[0].device.bytes_in_use() + two.pools[1].device.bytes_in_use() == 0);
  CHECK(two.gpus.living == 0);
}

TEST_CASE("notes that no sender writes are refused", "[transport][device][peers]") {
  start_log("messages_test", "", LogLevel::error);  // each is told
  auto below = make_in_process_transports(2);
  Gpus gpus;
  Pools pools;
  auto end = make_peer_transport(std::move(below[0]), std::make_unique<FakeCopies>(gpus, char{1}),
                                 {.name = 1, .device_pool = &pools.device, .now_us = [] { return std::int64_t{1}; }});
  MessageDraw draw(7);
  std::uint64_t note[5] = {0x59415745434E4154, 9, 0, 0, 0};
  for (int round = 0; round < 2000; ++round) {
    for (const std::size_t field : {2, 3, 4}) note[field] = draw.below(3) == 0 ? draw.word() : draw.below(3);
    Frame frame;
    frame.header.resize(32 + draw.below(200));
    std::memcpy(frame.header.data(), note, std::min(sizeof note, frame.header.size()));
    below[1]->send(0, std::move(frame));
    end->poll([](const Frame&) {});
  }
  CHECK(gpus.living <= 1);
  start_log("messages_test", "", LogLevel::info);
}

TEST_CASE("a simulated network carries device memory between nodes that brought some, by a copy of its own",
          "[transport][device][sim]") {
  std::size_t copied = 0;
  SimNetworkOptions options;
  options.device_copy = [&](std::byte* to, const std::byte* from, std::size_t size) {
    std::memcpy(to, from, size);
    copied += size;
  };
  SimNetwork network(options);
  std::array<Pools, 2> pools;
  std::array<std::unique_ptr<Transport>, 3> ends;
  for (std::uint32_t node = 0; node < 3; ++node)
    ends[node] = network.attach(node, 1, nullptr, node < 2 ? &pools[node].device : nullptr);
  for (std::uint32_t node = 1; node < 3; ++node) ends[0]->connect(node, SimNetwork::address(node, 1));
  CHECK(ends[0]->carries_device_memory(1));
  CHECK_FALSE(ends[0]->carries_device_memory(2));
  const Payload sent = pools[0].device.take(100);
  sent.data.get()[99] = std::byte{7};
  ends[0]->send(1, numbered(1, sent));
  network.set_time(1'000'000);
  std::vector<Frame> came;
  ends[1]->poll([&](Frame frame) { came.push_back(std::move(frame)); });
  REQUIRE((came.size() == 1 && came[0].device.size() == 1 && came[0].payloads.empty()));
  CHECK((came[0].device[0].on_device && came[0].device[0].data.get()[99] == std::byte{7} && copied == 100));
  network.detach(1, 1);
  ends[0]->send(1, numbered(2, sent));  // to a dead one
}
