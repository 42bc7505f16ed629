// Transports against each other, the payload pool and the control socket. UCX runs in real processes only.
#include <catch2/catch.hpp>

#include <atomic>
#include <filesystem>
#include <thread>

#include "kernels/base/error.h"
#include "messages/control_socket.h"
#include "messages/in_process.h"
#include "messages/ucx.h"
#include "tests/support/random_message.h"
#include "tests/support/two_ends.h"
#include "tests/support/two_processes.h"

using namespace troupe;

namespace {

// A process whose UCX transport is connected to the other's as node 0 or 1.
ProcessBody ucx_process(std::uint32_t node, const UcxOptions& options,
                        const std::function<std::string(Transport&, PayloadPool&, int)>& body) {
  return [=](int socket) {
    PayloadPool pool;
    auto transport = make_ucx_transport(options, pool);
    transport->connect(1 - node, heard_from(options, swap_strings(socket, transport->local_address())));
    std::string problem = body(*transport, pool, socket);
    const auto before = Clock::now();
    transport.reset();
    if (problem.empty() && Clock::now() - before > std::chrono::seconds(1)) problem = "the end took more than a second";
    if (problem.empty() && pool.bytes_in_use() > 0) problem = "payloads are still held at the end";
    return problem;
  };
}

// Sends `rounds` frames of one payload or two to and fro. Microseconds of each round trip, sorted.
std::vector<double> round_trips(std::uint32_t node, Transport& transport, PayloadPool& pool, std::size_t size, bool two,
                                bool sleep, int rounds) {
  std::vector<double> times;
  const Payload whole = pool.take(size), half = pool.take(size / 2), other_half = pool.take(size / 2);
  for (const Payload& payload : {whole, half, other_half}) std::memset(payload.data.get(), 1, payload.size);
  const Message one_payload = SharedTensor{.version = 1, .attempt = 0, .values = whole};
  const Message two_payloads = ExpertResult{.key = {}, .rows = 1, .stashed = false, .hidden = half, .dots = other_half};
  const Message& message = two ? two_payloads : one_payload;
  for (int round = 0; round < rounds; ++round) {
    const auto start = Clock::now();
    if (node == 0) transport.send(1, frame_of(message, 1));
    for (bool back = false; !back;) {
      const bool happened = transport.poll([&](const Frame& frame) {
        std::string problem;
        back = decode(frame, problem).has_value();
      });
      if (!happened && sleep && transport.arm()) readable(transport.wake_fd(), 1000);
    }
    if (node == 1) transport.send(0, frame_of(message, 1));
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  return times;
}

}  // namespace

TEST_CASE("two processes tell each other every kind of message over UCX and end cleanly", "[transport][ucx]") {
  for (const UcxOptions& way : kWays) {
    INFO("tls " << way.tls);
    const auto body = [](std::uint32_t node) {
      return [node](Transport& transport, PayloadPool&, int) { return tell_and_listen(node, transport); };
    };
    CHECK(run_two_processes(ucx_process(0, way, body(0)), ucx_process(1, way, body(1))) == std::array{0, 0});
  }
}

TEST_CASE("a process that sleeps is woken by a message", "[transport][ucx]") {
  const auto sleeper = [](Transport& transport, PayloadPool&, int socket) -> std::string {
    End end(0, transport);
    end.send({.from = {}, .to = {}, .message = Stop{.reason = "connect"}});
    if (!end.wait_until([&] { return end.received.size() == 1; })) return "never met";
    for (int round = 0; round < 20; ++round) {
      while (!transport.arm()) transport.poll([&](const Frame& frame) { end.take(frame); });
      if (end.received.size() > 1 + std::size_t(round)) return "a message came before it was sent";
      swap_strings(socket, "asleep");
      if (!readable(transport.wake_fd(), 5000)) return "it slept on";
      if (!end.wait_until([&] { return end.received.size() == 2 + std::size_t(round); })) return "woken for nothing";
    }
    return {};
  };
  const auto waker = [](Transport& transport, PayloadPool&, int socket) -> std::string {
    End end(1, transport);
    end.send({.from = {}, .to = {}, .message = Stop{.reason = "connect"}});
    if (!end.wait_until([&] { return end.received.size() == 1; })) return "never met";
    end.wait_until(
        [&] { return readable(socket, 0); });  // a greeting on its way out needs polls: until the other sleeps
    for (int round = 0; round < 20; ++round) {
      swap_strings(socket, "waking");
      end.send({.from = {}, .to = {}, .message = Stop{.reason = "wake up"}});
      transport.poll([](const Frame&) {});
    }
    return {};
  };
  for (const UcxOptions& way : kWays) {
    INFO("tls " << way.tls);
    CHECK(run_two_processes(ucx_process(0, way, sleeper), ucx_process(1, way, waker)) == std::array{0, 0});
  }
}

TEST_CASE("a process outlives a peer that was killed with frames under way", "[transport][ucx]") {
  const auto survivor = [](const UcxOptions& way) -> ProcessBody {
    return [way](int socket) -> std::string {
      PayloadPool pool;
      MessageDraw draw(1);
      auto transport = make_ucx_transport(way, pool);
      transport->connect(1, heard_from(way, swap_strings(socket, transport->local_address())));
      const Payload big = draw.payload(std::size_t{1} << 20);
      for (std::uint64_t i = 1; i <= 50; ++i) {
        transport->send(1, numbered(i, i % 2 == 0 ? big : draw.payload(100)));
        transport->poll([](const Frame&) {});
      }
      char byte = 0;
      while (::recv(socket, &byte, 1, MSG_DONTWAIT) < 0) transport->poll([](const Frame&) {});  // until end of file
      for (std::uint64_t i = 51; i <= 100; ++i) transport->send(1, numbered(i, big));
      for (int i = 0; i < 100; ++i) transport->poll([](const Frame&) {});
      transport->forget(1);
      transport->send(1, numbered(101, big));  // dropped
      for (int i = 0; i < 100; ++i) transport->poll([](const Frame&) {});
      const auto before = Clock::now();
      transport.reset();
      return Clock::now() - before > std::chrono::seconds(5) ? "the end took more than five seconds" : "";
    };
  };
  const auto victim = [](Transport& transport, PayloadPool&, int) -> std::string {
    for (int received = 0; received == 0;) transport.poll([&](const Frame&) { ++received; });
    ::kill(::getpid(), SIGKILL);
    return {};
  };
  for (const UcxOptions& way : kWays) {
    INFO("tls " << way.tls);
    CHECK(run_two_processes(survivor(way), ucx_process(1, way, victim)) == std::array{0, SIGKILL});
  }
}

TEST_CASE("a peer that died before it was reached costs only its frames", "[transport][ucx]") {
  const auto survivor = [](const UcxOptions& way) -> ProcessBody {
    return [way](int socket) -> std::string {
      PayloadPool pool;
      MessageDraw draw(1);
      auto transport = make_ucx_transport(way, pool);
      const std::string address = heard_from(way, swap_strings(socket, transport->local_address()));
      char byte = 0;
      while (::recv(socket, &byte, 1, 0) > 0) continue;  // until its end
      transport->connect(1, address);
      for (std::uint64_t i = 1; i <= 10; ++i) transport->send(1, numbered(i, draw.payload(100)));
      for (int i = 0; i < 100; ++i) transport->poll([](const Frame&) {});
      return "";
    };
  };
  const auto victim = [](const UcxOptions& way) -> ProcessBody {
    return [way](int socket) -> std::string {
      PayloadPool pool;
      auto transport = make_ucx_transport(way, pool);
      swap_strings(socket, transport->local_address());
      ::kill(::getpid(), SIGKILL);
      return {};
    };
  };
  for (const UcxOptions& way : kWays) {
    INFO("tls " << way.tls);
    CHECK(run_two_processes(survivor(way), victim(way)) == std::array{0, SIGKILL});
  }
}

TEST_CASE("an address that is none reaches nobody, and harms nothing", "[transport][ucx]") {
  const ProcessBody tries = [](int) -> std::string {
    PayloadPool pool;
    const auto transport = make_ucx_transport({.tls = "any", .interface = ""}, pool);
    for (const std::size_t size : {0, 10, 24}) {
      transport->connect(1, std::string(size, 'x'));
      transport->send(1, frame_of(Stop{"nobody hears this"}, 1));
    }
    return transport->poll([](const Frame&) {}) ? "something came" : "";
  };
  CHECK(run_two_processes(tries, tries) == std::array{0, 0});
}

TEST_CASE("a transport that doesn't exist is refused with advice", "[transport][ucx]") {
  const auto refused = [](const UcxOptions& options, const std::string& words) {
    return [=](int) -> std::string {
      PayloadPool pool;
      try {
        make_ucx_transport(options, pool);
      } catch (const Error& e) {
        return std::string(e.what()).find(words) != std::string::npos ? "" : e.what();
      }
      return "it was made";
    };
  };
  CHECK(run_two_processes(
            refused({.tls = "pigeon", .interface = ""}, "must be \"auto\", \"shm\", \"tcp\", \"ib\" or \"any\""),
            refused({.tls = "tcp", .interface = "nowhere0"}, "no network interface")) == std::array{0, 0});
  CHECK(run_two_processes(refused({.tls = "tcp", .interface = "mlx5_0:1"}, "no network interface"),
                          refused({.tls = "any", .interface = "mlx5_77:1"}, "`ibstat`")) == std::array{0, 0});
  if (std::filesystem::exists("/sys/class/infiniband")) return;
  CHECK(run_two_processes(refused({.tls = "ib", .interface = ""}, "no InfiniBand or RoCE adapter"),
                          refused({.tls = "ib", .interface = "lo"}, "no InfiniBand or RoCE adapter")) ==
        std::array{0, 0});
}

TEST_CASE("two threads tell each other every kind of message in one process", "[transport]") {
  auto transports = make_in_process_transports(2);
  std::array<std::string, 2> problems;
  std::thread other([&] { problems[1] = tell_and_listen(1, *transports[1]); });
  problems[0] = tell_and_listen(0, *transports[0]);
  other.join();
  CHECK(problems == std::array<std::string, 2>{});
}

TEST_CASE("faults in one process are the same for the same seed", "[transport]") {
  const auto story = [](std::uint64_t seed) {
    auto transports =
        make_in_process_transports(2, {.seed = seed, .drop = 0.2, .duplicate = 0.2, .reorder = 0.5, .corrupt = 0.1});
    MessageDraw draw(1);
    std::vector<Frame> arrived;
    for (std::uint64_t i = 1; i <= 100; ++i) {
      transports[0]->send(1, numbered(i, draw.payload(10)));
      transports[1]->poll([&](Frame frame) { arrived.push_back(std::move(frame)); });
    }
    while (!transports[1]->arm()) transports[1]->poll([&](Frame frame) { arrived.push_back(std::move(frame)); });
    std::vector<FrameHeader> headers;
    for (const Frame& frame : arrived) headers.push_back(frame.header);
    return headers;
  };
  CHECK(story(1) == story(1));
  CHECK(story(1) != story(2));
}

TEST_CASE("frames to a forgotten node are dropped, and a sleeping node's descriptor tells of new ones", "[transport]") {
  auto transports = make_in_process_transports(2);
  CHECK(transports[1]->arm());
  CHECK_FALSE(readable(transports[1]->wake_fd(), 0));
  transports[0]->forget(1);
  transports[0]->send(1, numbered(1, {}));
  CHECK(transports[1]->arm());
  transports[0]->connect(1, transports[1]->local_address());
  transports[0]->send(1, numbered(1, {}));
  CHECK_FALSE(transports[1]->arm());
  CHECK(readable(transports[1]->wake_fd(), 0));
  int received = 0;
  CHECK(transports[1]->poll([&](const Frame&) { ++received; }));
  CHECK((received == 1 && transports[1]->arm() && !readable(transports[1]->wake_fd(), 0)));
}

TEST_CASE("pool buffers are aligned to pages, reused, counted, and may outlive their pool", "[payload]") {
  auto pool = std::make_unique<PayloadPool>();
  Payload first = pool->take(5000), second = pool->take(5000);
  CHECK((first.size == 5000 && reinterpret_cast<std::uintptr_t>(first.data.get()) % 4096 == 0));
  CHECK(pool->bytes_in_use() == 2 * 8192);
  const std::byte* where = first.data.get();
  first = {};
  CHECK(pool->bytes_in_use() == 8192);
  first = pool->take(8000);
  CHECK(first.data.get() == where);
  CHECK(pool->bytes_peak() == 2 * 8192);
  CHECK(pool->take(0).data == nullptr);
  pool.reset();
  std::memset(first.data.get(), 1, first.size);
  std::memset(second.data.get(), 1, second.size);
}

TEST_CASE("a pool takes its memory from the source that it was given, and gives all of it back", "[payload]") {
  std::size_t taken = 0, given_back = 0;
  Payload last;
  {
    PayloadPool pool([&](std::size_t size) {
      taken += size;
      std::shared_ptr<std::byte> memory = PayloadPool::process_memory(size);
      return std::shared_ptr<std::byte>(memory.get(), [&given_back, size, memory](std::byte*) { given_back += size; });
    });
    last = pool.take(5000);
    last = {};
    last = pool.take(6000);
    CHECK(taken == 8192);
    CHECK(pool.take(20'000).size == 20'000);
    CHECK(taken == 8192 + 20'480);
  }
  last = {};  // it outlived the pool
  CHECK(given_back == taken);
}

TEST_CASE("a pool shared by threads gives no buffer twice", "[payload]") {
  PayloadPool pool;
  std::atomic<int> spoiled = 0;
  const auto work = [&](int id) {
    MessageDraw draw(static_cast<std::uint64_t>(id));
    std::vector<Payload> held(8);
    for (int i = 0; i < 20'000; ++i) {
      Payload& payload = held[draw.below(held.size())];
      if (payload && (payload.as<int>()[0] != id || payload.as<int>()[payload.size / 4 - 1] != id)) ++spoiled;
      payload = pool.take(4096 << draw.below(4));
      payload.as<int>()[0] = payload.as<int>()[payload.size / 4 - 1] = id;
    }
  };
  std::thread other(work, 1);
  work(2);
  other.join();
  CHECK(spoiled == 0);
  CHECK(pool.bytes_in_use() == 0);
}

TEST_CASE("control lines of any size arrive whole, in order, and the end of the other side is news", "[control]") {
  auto [parent, fd] = ControlSocket::make_pair();
  ControlSocket child(fd);
  std::vector<std::string> lines = {"", "hello", std::string(3'000'000, 'x'), std::string("a\0b\n", 4)};
  for (const std::string& line : lines) CHECK(parent.send(line));
  CHECK(parent.wants_write());  // three million bytes don't fit at once
  std::vector<std::string> got;
  while (got.size() < lines.size()) {
    CHECK(parent.flush());
    CHECK(child.read());
    while (auto line = child.next()) got.push_back(std::move(*line));
  }
  CHECK(got == lines);
  CHECK(parent.send("last words"));
  { const ControlSocket gone = std::move(parent); }
  while (child.read()) {
  }
  CHECK(child.next() == "last words");
  CHECK_FALSE(child.send("too late"));  // and no signal
}

TEST_CASE("a control line of impossible length ends the conversation", "[control]") {
  auto [parent, fd] = ControlSocket::make_pair();
  const std::string bytes(100, '\xff');
  REQUIRE(::send(fd, bytes.data(), bytes.size(), 0) == 100);
  CHECK_FALSE(parent.read());
  CHECK(parent.next() == std::nullopt);
  ::close(fd);
}

TEST_CASE("round trips over UCX, in microseconds", "[transport][.bench]") {
  for (const UcxOptions& way : kWays)
    for (const std::size_t size : {std::size_t{256}, std::size_t{65536}, std::size_t{1} << 20, std::size_t{8} << 20})
      for (const bool two : {false, true})
        for (const bool sleep : {false, true}) {
          const int rounds = size < 1000 ? 10'000 : size > 2'000'000 ? 100 : 1000;
          const auto body = [=](std::uint32_t node) {
            return [=](Transport& transport, PayloadPool& pool, int) -> std::string {
              const auto times = round_trips(node, transport, pool, size, two, sleep, rounds);
              const auto at = [&](double part) { return times[std::size_t(double(times.size()) * part)]; };
              if (node == 0)
                fmt::print("tls={} bytes={:<7} payloads={} {} p10={:.1f} median={:.1f} p90={:.1f}\n", way.tls, size,
                           two ? 2 : 1, sleep ? "sleep" : "spin ", at(0.1), at(0.5), at(0.9));
              return {};
            };
          };
          CHECK(run_two_processes(ucx_process(0, way, body(0)), ucx_process(1, way, body(1))) == std::array{0, 0});
        }
}
