// What a message costs: an actor in one process asks an actor in another, which answers, over UCX and everything that a
// run has between its actors: board, node, link, codec, loop. Each process is pinned to a core of its own. Prints one
// line of JSON; tests/bench/messages.py puts UCX's own benchmark beside it.
#include <fmt/core.h>
#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>
#include <vector>

#include "actors/board.h"
#include "actors/config.h"
#include "actors/node.h"
#include "kernels/base/error.h"
#include "kernels/cpu/device.h"
#include "launcher/loop.h"
#include "messages/ucx.h"
#include "tests/support/two_processes.h"

using namespace troupe;

namespace {

constexpr std::size_t kRecords = 1 << 16;  // of the journal
constexpr Address kAsker{Role::stage, 0}, kEcho{Role::expert_shard, 0};
constexpr LinkHeader kAnyLink{.from_node = 1, .from_incarnation = 1, .to_incarnation = 1, .sequence = 1};

struct Trial {
  UcxOptions way;
  std::size_t header_bytes = 256;  // of a frame, all layers' shares in it
  std::size_t tensor_bytes = 0;
  int tensors = 1;      // different ones that are sent in turn
  int outstanding = 1;  // more than one: answers carry no tensor
  int send_back = 0;    // 1: the tensor that came; else the answer has one of its own, as in UCX's benchmark
  int rounds = 10'000, warm_up = 1'000;
  std::int64_t spin_us = LayoutConfig{}.spin_us;
};

// Its frame's header has the size that the trial wants.
ExpertBatch question_of(const Trial& trial) {
  ExpertBatch question;
  question.rows = 1;
  const auto size = [&] { return encode({kAsker, kEcho, question}, kAnyLink, false).header.size(); };
  while (size() < trial.header_bytes) question.counts.push_back(1);
  if (size() != trial.header_bytes) throw Error("no header of {} bytes, but one of {}", trial.header_bytes, size());
  return question;
}

Payload filled(PayloadPool& pool, std::size_t size, int value) {
  Payload tensor = pool.take(size);
  if (size > 0) std::memset(tensor.data.get(), value, size);
  return tensor;
}

// Keeps `outstanding` questions under way, and notes when each answer came.
class Asker {
 public:
  Asker(Context context, const Trial& trial) : context_(context), trial_(trial), question_(question_of(trial)) {
    times_ns_.reserve(static_cast<std::size_t>(trial.warm_up + trial.rounds));
    for (int i = 0; i < trial.tensors; ++i) tensors_.push_back(filled(context_.pool(), trial.tensor_bytes, i + 1));
  }
  void begin() {
    begin_ns_ = monotonic_ns();
    for (int i = 0; i < trial_.outstanding; ++i) ask();
  }
  void on(const ExpertBatch&, const Address&) { answered(); }
  void on(const Credit&, const Address&) { answered(); }
  bool done() const { return static_cast<int>(times_ns_.size()) == trial_.warm_up + trial_.rounds; }
  // Microseconds from question to answer, sorted; of one question at a time.
  std::vector<double> round_trips_us() const {
    std::vector<double> us;
    for (auto i = static_cast<std::size_t>(trial_.warm_up); i < times_ns_.size(); ++i)
      us.push_back(static_cast<double>(times_ns_[i] - (i == 0 ? begin_ns_ : times_ns_[i - 1])) * 1e-3);
    std::sort(us.begin(), us.end());
    return us;
  }
  double seconds() const {
    const auto first = static_cast<std::size_t>(std::max(1, trial_.warm_up)) - 1;
    return static_cast<double>(times_ns_.back() - times_ns_[first]) * 1e-9;
  }

  void waits(Waits&) const {}
  std::uint32_t attempt() const { return 0; }
  std::int64_t version() const { return 0; }

 private:
  void ask() {
    if (asked_ == trial_.warm_up + trial_.rounds) return;
    question_.hidden = tensors_[static_cast<std::size_t>(asked_) % tensors_.size()];
    ++asked_;
    context_.post(kEcho, question_);
  }
  void answered() {
    times_ns_.push_back(monotonic_ns());
    ask();
  }

  Context context_;
  const Trial& trial_;
  ExpertBatch question_;
  std::vector<Payload> tensors_;
  std::vector<std::int64_t> times_ns_;
  std::int64_t begin_ns_ = 0;
  int asked_ = 0;
};

// Answers with as much as it was sent; of several questions under way only that they came.
class Echo {
 public:
  Echo(Context context, const Trial& trial) : context_(context), trial_(trial), answer_(question_of(trial)) {
    answer_.hidden = filled(context_.pool(), trial.tensor_bytes, 7);
  }
  void on(const ExpertBatch& question, const Address& from) {
    if (trial_.outstanding > 1)
      context_.post(from, Credit{Channel::dispatch_forward, 0, 1, 0});
    else
      context_.post(from, trial_.send_back != 0 ? question : answer_);
  }
  void waits(Waits&) const {}
  std::uint32_t attempt() const { return 0; }
  std::int64_t version() const { return 0; }

 private:
  Context context_;
  const Trial& trial_;
  ExpertBatch answer_;
};

void pin(int core) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  CPU_SET(core, &cores);
  if (sched_setaffinity(0, sizeof cores, &cores) != 0) throw Error("there is no core {} to pin a process to", core);
}

// A process with the parts that a run's has.
struct End {
  End(std::uint32_t id, int socket, const Trial& trial)
      : board_memory(board_size(1, 1) / sizeof(std::uint64_t)),
        board(reinterpret_cast<std::byte*>(board_memory.data()), 1, 1, {}),
        journal_memory(journal_size(kRecords) / sizeof(std::uint64_t)),
        journal(reinterpret_cast<std::byte*>(journal_memory.data()), kRecords, {.node = id, .number = 1}),
        watch(&board, &journal, {id == 0 ? kAsker : kEcho}),
        transport(make_ucx_transport(trial.way, pool)),
        node(id, 1,
             {.device = &device,
              .disk = disk.get(),
              .pool = &pool,
              .transport = transport.get(),
              .watch = &watch,
              .now_us = monotonic_us}),
        loop(node, trial.spin_us) {
    node.place(kAsker, 0);
    node.place(kEcho, 1);
    node.connect(1 - id, 1, swap_strings(socket, transport->local_address()), monotonic_us());
  }
  PayloadPool pool;
  CpuDevice device{1};
  std::unique_ptr<Disk> disk = make_posix_disk();
  std::vector<std::uint64_t> board_memory;
  Board board;
  std::vector<std::uint64_t> journal_memory;
  Journal journal;
  NodeWatch watch;
  std::unique_ptr<Transport> transport;
  Node node;
  Loop loop;
};

void print(const Trial& trial, const Asker& asker) {
  const auto us = asker.round_trips_us();
  const auto half = [&](double share) { return us[static_cast<std::size_t>(share * double(us.size() - 1))] / 2; };
  const double bytes = double(trial.tensor_bytes) * trial.rounds;
  fmt::print(
      "{{\"half_round_trip_us\": {:.3f}, \"p10_us\": {:.3f}, \"p90_us\": {:.3f}, \"p99_us\": {:.3f}, "
      "\"mbytes_per_second\": {:.1f}}}\n",
      half(0.5), half(0.1), half(0.9), half(0.99), bytes / asker.seconds() / (1 << 20));
}

ProcessBody asking(const Trial& trial, int core) {
  return [&trial, core](int socket) -> std::string {
    pin(core);
    End end(0, socket, trial);
    Asker& asker = end.node.add<Asker>(kAsker, trial);
    asker.begin();
    end.loop.run([&] { return asker.done(); });
    print(trial, asker);
    swap_strings(socket, "done");
    return {};
  };
}

ProcessBody answering(const Trial& trial, int core) {
  return [&trial, core](int socket) -> std::string {
    pin(core);
    End end(1, socket, trial);
    end.node.add<Echo>(kEcho, trial);
    bool done = false;
    end.loop.watch(socket, [&] { done = true; });
    end.loop.run([&] { return done; });
    swap_strings(socket, "done");
    return {};
  };
}

}  // namespace

int main(int argc, char** argv) {
  Trial trial;
  std::array<int, 2> cores{0, 1};
  const auto number = [](auto& into) {
    return [&into](const char* text) { std::from_chars(text, text + std::strlen(text), into); };
  };
  const std::map<std::string, std::function<void(const char*)>> options{
      {"--tls", [&](const char* text) { trial.way.tls = text; }},
      {"--interface", [&](const char* text) { trial.way.interface = text; }},
      {"--bytes", number(trial.tensor_bytes)},  // of the tensor; 0: only a header
      {"--header", number(trial.header_bytes)},
      {"--tensors", number(trial.tensors)},
      {"--outstanding", number(trial.outstanding)},
      {"--rounds", number(trial.rounds)},
      {"--warm-up", number(trial.warm_up)},
      {"--send-back", number(trial.send_back)},
      {"--spin", number(trial.spin_us)},
      {"--first-core", number(cores[0])},
      {"--second-core", number(cores[1])}};
  for (int i = 1; i + 1 < argc; i += 2) {
    const auto option = options.find(argv[i]);
    if (option == options.end()) {
      fmt::print(stderr, "messages_bench: no option {}\n", argv[i]);
      return 1;
    }
    option->second(argv[i + 1]);
  }
  return run_two_processes(asking(trial, cores[0]), answering(trial, cores[1]), 600) == std::array{0, 0} ? 0 : 1;
}
