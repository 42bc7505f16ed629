// Payloads in device memory between nodes: by UCX, and joined with their frames. Device memory is the
// processor's here, or says that it is another's.
#include <sys/socket.h>

#include <atomic>
#include <thread>

#include "launcher/slow_link.h"
#include "messages/in_process.h"
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
