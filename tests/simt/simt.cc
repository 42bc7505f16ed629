#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include <cuda_runtime.h>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace simt {

namespace {

constexpr std::size_t kStack = std::size_t{1} << 18, kThreadsMax = 1024, kSharedMax = 227 * 1024, kValueMax = 64;
constexpr unsigned kGridMax = 65535;  // along y and z
constexpr std::uint64_t kRestRounds = 32;

// A meeting of threads: nobody leaves before everybody is there. Values of the last meeting stay until the one after
// next, so that whoever is slow still reads them.
struct Meeting {
  unsigned arrived = 0, generation = 0;
  const char* what = nullptr;
  std::vector<unsigned char> values[2];
};

struct CopyLater {
  void* to;
  const void* from;
  int bytes;
};

struct PhaseBarrier {
  int arrivals = 0, awaited = 0, bytes = 0;  // of a phase; still to come in this one
  unsigned phase = 0;
  struct Delivery {
    int bytes;
    std::function<void()> work;
  };
  std::vector<Delivery> deliveries;
};

struct Fiber {
  ucontext_t context{};
  jmp_buf state{};
  void* stack = nullptr;
  bool started = false, over = true, waits = false;
  std::function<bool()> ready;
  uint3 thread{};
  std::deque<std::vector<CopyLater>> copies;  // by group, the newest last and open
  std::deque<std::vector<std::function<void()>>> work, writes;
};

class Block {
 public:
  static Block& get() {
    static Block block;
    return block;
  }

  void run(const cudaLaunchConfig_t& config, uint3 index, const std::function<void()>& body) {
    const unsigned count = config.blockDim.x * config.blockDim.y * config.blockDim.z;
    body_ = &body;
    count_ = alive_ = count;
    barrier_ = {};
    phases_.clear();
    meetings_.clear();
    warps_.clear();
    warps_.resize((count + 31) / 32);
    std::memset(shared_.data(), kUnwritten, config.dynamicSmemBytes);
    blockIdx = index;
    blockDim = config.blockDim;
    gridDim = config.gridDim;
    for (unsigned i = 0; i < count; ++i) begin(i, config.blockDim);
    go();
  }

  void block_meet() {
    Meeting& m = barrier_;
    const unsigned generation = m.generation;
    if (++m.arrived >= alive_) return open(m);
    wait([&m, generation] { return m.generation != generation; });
  }

  const unsigned char* warp_meet(unsigned mask, const void* value, std::size_t size, const char* what) {
    if (size > kValueMax) throw std::logic_error("too large a value between lanes");
    const unsigned number = linear(threadIdx), lane = number % 32;
    if ((mask >> lane & 1U) == 0) fail(std::string(what) + ": a lane isn't in its own mask");
    Meeting& m = warps_[number / 32][mask];
    const unsigned generation = m.generation;
    std::vector<unsigned char>& values = m.values[generation % 2];
    if (values.empty()) values.assign(32 * kValueMax, kUnwritten);
    if (m.arrived == 0) m.what = what;
    if (std::strcmp(m.what, what) != 0) fail(std::string("lanes of a warp meet at ") + m.what + " and " + what);
    std::memcpy(values.data() + lane * size, value, size);
    const unsigned first = number / 32 * 32, lanes = std::min(32U, count_ - first);
    const unsigned there = mask & (lanes == 32 ? 0xFFFFFFFFU : (1U << lanes) - 1);
    if (++m.arrived == static_cast<unsigned>(std::popcount(there)))
      open(m);
    else
      wait([&m, generation] { return m.generation != generation; });
    return values.data();
  }

  // Until then the place holds no number that anybody wrote.
  void copy_later(const CopyLater& copy) {
    if (reinterpret_cast<std::uintptr_t>(copy.to) % 16 != 0 || reinterpret_cast<std::uintptr_t>(copy.from) % 16 != 0)
      fail("an asynchronous copy that isn't aligned to 16 bytes");
    std::memset(copy.to, kUnwritten, 16);
    now_->copies.back().push_back(copy);
  }
  void end_copies() { now_->copies.emplace_back(); }
  void finish_copies(int left) {
    while (now_->copies.size() > static_cast<std::size_t>(left) + 1) {  // the last is still open
      for (const CopyLater& copy : now_->copies.front()) {
        std::memset(copy.to, 0, 16);
        if (copy.bytes > 0) std::memcpy(copy.to, copy.from, static_cast<std::size_t>(copy.bytes));
      }
      now_->copies.pop_front();
    }
  }

  void do_later(std::function<void()> work) { now_->work.back().push_back(std::move(work)); }
  void end_work() { now_->work.emplace_back(); }
  void finish_work(int left) { finish(now_->work, left); }
  void write_later(std::function<void()> work) { now_->writes.back().push_back(std::move(work)); }
  void end_writes() { now_->writes.emplace_back(); }
  void finish_writes(int left) { finish(now_->writes, left); }

  void meet(int number, unsigned threads) {
    Meeting& m = meetings_[number];
    const unsigned generation = m.generation;
    if (++m.arrived == threads) return open(m);
    wait([&m, generation] { return m.generation != generation; });
  }

  void begin_barrier(const void* at, int arrivals) {
    if (phases_.contains(at)) fail("a barrier that is begun twice");
    phases_[at] = {arrivals, arrivals, 0, 0, {}};
  }
  void arrive(const void* at, int bytes) {
    PhaseBarrier& barrier = phase_barrier(at);
    if (barrier.awaited == 0) fail("one more arrives at a barrier than its phase awaits");
    barrier.bytes += bytes;
    --barrier.awaited;
    end_phase(barrier);
  }
  void deliver_later(const void* at, void* to, int bytes, std::function<void()> work) {
    std::memset(to, kUnwritten, static_cast<std::size_t>(bytes));
    phase_barrier(at).deliveries.push_back({bytes, std::move(work)});
  }
  void wait_for_phase(const void* at, int parity) {
    PhaseBarrier& barrier = phase_barrier(at);
    if (barrier.awaited == 0) deliver(barrier);
    // The phase of this parity is over if the one under way has the other.
    wait([this, &barrier, parity] {
      if (barrier.awaited == 0) deliver(barrier);
      return (barrier.phase & 1U) != static_cast<unsigned>(parity);
    });
  }

  unsigned char* shared() { return shared_.data(); }
  std::uint64_t draw() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    return state_ ^= state_ << 17;
  }

 private:
  Block() : fibers_(kThreadsMax), shared_(kSharedMax) {}

  static void finish(std::deque<std::vector<std::function<void()>>>& groups, int left) {
    while (groups.size() > static_cast<std::size_t>(left) + 1) {
      for (const auto& one : groups.front()) one();
      groups.pop_front();
    }
  }

  PhaseBarrier& phase_barrier(const void* at) {
    const auto found = phases_.find(at);
    if (found == phases_.end()) fail("a barrier that nobody began");
    return found->second;
  }
  void deliver(PhaseBarrier& barrier) {
    for (const PhaseBarrier::Delivery& one : std::exchange(barrier.deliveries, {})) {
      one.work();
      barrier.bytes -= one.bytes;
    }
    end_phase(barrier);
  }
  static void end_phase(PhaseBarrier& barrier) {
    if (barrier.awaited > 0 || barrier.bytes != 0) return;
    barrier.awaited = barrier.arrivals;
    ++barrier.phase;
  }

  unsigned linear(uint3 t) const { return t.x + blockDim.x * (t.y + blockDim.y * t.z); }

  [[noreturn]] void fail(const std::string& what) {
    std::fprintf(stderr, "block (%u, %u, %u), thread (%u, %u, %u): %s\n", blockIdx.x, blockIdx.y, blockIdx.z,
                 threadIdx.x, threadIdx.y, threadIdx.z, what.c_str());
    std::abort();
  }

  void begin(unsigned i, dim3 size) {
    Fiber& f = fibers_[i];
    f.thread = {i % size.x, i / size.x % size.y, i / size.x / size.y};
    f.over = f.waits = false;
    f.copies.assign(1, {});
    f.work.assign(1, {});
    f.writes.assign(1, {});
    if (f.stack != nullptr) return;
    f.stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (f.stack == MAP_FAILED) throw std::bad_alloc();
  }

  void open(Meeting& m) {
    m.arrived = 0;
    ++m.generation;
    std::vector<unsigned char>& next = m.values[m.generation % 2];
    if (!next.empty()) std::fill(next.begin(), next.end(), kUnwritten);
  }

  template <typename Ready>
  void wait(Ready ready) {
    Fiber& own = *now_;
    while (!ready()) {
      own.waits = true;
      own.ready = ready;
      leave(own);
    }
  }

  void leave(Fiber& own) {
    if (_setjmp(own.state) == 0) _longjmp(home_, 1);
  }

  // Round after round over the threads, each time in another order; a round in which nobody moves is a deadlock. Some
  // warps rest for some rounds, so that others run ahead as far as barriers let them.
  void go() {
    order_.resize(count_);
    for (unsigned i = 0; i < count_; ++i) order_[i] = i;
    std::uint64_t resting = 0, rounds = 0;  // a bit a warp
    while (alive_ > 0) {
      if (rounds++ % kRestRounds == 0) resting = draw() >> 32;
      for (unsigned i = count_; i > 1; --i) std::swap(order_[i - 1], order_[draw() % i]);
      bool moved = false;
      for (const unsigned i : order_) {
        Fiber& f = fibers_[i];
        if (f.over || (resting >> i / 32 & 1U) != 0 || (f.waits && !f.ready())) continue;
        f.waits = false;
        moved = true;
        resume(f);
      }
      if (moved || alive_ == 0) continue;
      if (std::exchange(resting, 0) != 0) continue;
      for (const unsigned i : order_)
        if (!fibers_[i].over) threadIdx = fibers_[i].thread;
      fail("threads wait for each other in vain: not all of them come to the same barrier");
    }
  }

  void resume(Fiber& f) {
    now_ = &f;
    threadIdx = f.thread;
    if (_setjmp(home_) != 0) return;
    if (f.started) _longjmp(f.state, 1);
    f.started = true;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack;
    f.context.uc_stack.ss_size = kStack;
    f.context.uc_link = nullptr;
    makecontext(&f.context, &Block::enter, 0);
    setcontext(&f.context);
  }

  // A fiber lives on from block to block.
  static void enter() {
    Block& block = get();
    Fiber& own = *block.now_;
    for (;;) {
      (*block.body_)();
      if (own.writes.size() > 1 || !own.writes.front().empty()) block.fail("a thread that ends before its writes");
      own.over = true;
      --block.alive_;
      if (block.barrier_.arrived > 0 && block.barrier_.arrived >= block.alive_) block.open(block.barrier_);
      block.leave(own);
    }
  }

  std::vector<Fiber> fibers_;
  std::vector<unsigned char> shared_;
  std::vector<std::map<unsigned, Meeting>> warps_;
  std::vector<unsigned> order_;
  Meeting barrier_;
  std::map<const void*, PhaseBarrier> phases_;
  std::map<int, Meeting> meetings_;
  std::uint64_t state_ = 1;  // of the order
  const std::function<void()>* body_ = nullptr;
  unsigned count_ = 0, alive_ = 0;
  Fiber* now_ = nullptr;
  jmp_buf home_{};
};

std::mutex one_at_a_time;

}  // namespace

void block_barrier() { Block::get().block_meet(); }
const unsigned char* exchange(unsigned mask, const void* value, std::size_t size, const char* what) {
  return Block::get().warp_meet(mask, value, size, what);
}
void copy_later(void* to, const void* from, int bytes) { Block::get().copy_later({to, from, bytes}); }
void end_copies() { Block::get().end_copies(); }
void finish_copies(int left) { Block::get().finish_copies(left); }
void do_later(std::function<void()> work) { Block::get().do_later(std::move(work)); }
void end_work() { Block::get().end_work(); }
void finish_work(int left) { Block::get().finish_work(left); }
void write_later(std::function<void()> work) { Block::get().write_later(std::move(work)); }
void end_writes() { Block::get().end_writes(); }
void finish_writes(int left) { Block::get().finish_writes(left); }
void meet(int number, unsigned threads) { Block::get().meet(number, threads); }
void begin_barrier(const void* barrier, int arrivals) { Block::get().begin_barrier(barrier, arrivals); }
void arrive(const void* barrier, int expected_bytes) { Block::get().arrive(barrier, expected_bytes); }
void wait(const void* barrier, int parity) { Block::get().wait_for_phase(barrier, parity); }
void deliver_later(const void* barrier, void* to, int bytes, std::function<void()> work) {
  Block::get().deliver_later(barrier, to, bytes, std::move(work));
}
void* dynamic_shared() { return Block::get().shared(); }

void check_launch(const cudaLaunchConfig_t& config) {
  const dim3 grid = config.gridDim;
  const unsigned count = config.blockDim.x * config.blockDim.y * config.blockDim.z;
  if (count == 0 || count > kThreadsMax) throw std::logic_error("a block of " + std::to_string(count) + " threads");
  if (config.dynamicSmemBytes > kSharedMax) throw std::logic_error("too much shared memory");
  if (grid.y > kGridMax || grid.z > kGridMax)
    throw std::logic_error("a grid of " + std::to_string(grid.y) + " blocks along y and " + std::to_string(grid.z) +
                           " along z");
}

// Blocks in order, or the last one first.
void run(const cudaLaunchConfig_t& config, const std::function<void()>& body) {
  const std::lock_guard lock(one_at_a_time);
  const dim3 grid = config.gridDim;
  const std::uint64_t count = std::uint64_t{grid.x} * grid.y * grid.z;
  const bool backward = Block::get().draw() % 2 == 1;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t at = backward ? count - 1 - i : i;
    const std::uint64_t x = at % grid.x, y = at / grid.x % grid.y, z = at / grid.x / grid.y;
    Block::get().run(config, {static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z)}, body);
  }
}

}  // namespace simt
