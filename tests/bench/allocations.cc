// How often a run asks the system for memory, once its queues, pools and maps have grown: calls of malloc and its kin a
// step, a message and an op, by thread. malloc is this program's own, counts, and calls the C library's. With --sites it
// tells the stacks that ask most, as addresses for addr2line.
#include <dlfcn.h>
#include <execinfo.h>
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/base/log.h"
#include "launcher/config.h"
#include "launcher/machine.h"
#include "launcher/world.h"

namespace {

constexpr std::size_t kThreadsMax = 64, kSitesMax = 8192;
constexpr int kDepth = 12;

// The first thread is the one that runs the loop; the others compute, and one serves the disk.
constinit std::array<std::atomic<std::uint64_t>, kThreadsMax> calls{};
constinit std::atomic<std::size_t> threads{0};
constinit thread_local std::size_t own_place = kThreadsMax;

struct Site {
  std::atomic<std::uint64_t> hash{0}, count{0};
  std::array<void*, kDepth> stack{};
};
constinit std::array<Site, kSitesMax> sites{};
constinit std::atomic<bool> watching{false};
constinit thread_local bool inside = false;

void note_stack() {
  std::array<void*, kDepth> stack{};
  inside = true;
  ::backtrace(stack.data(), kDepth);
  inside = false;
  std::uint64_t hash = 1469598103934665603ULL;
  for (void* const frame : stack) hash = (hash ^ reinterpret_cast<std::uint64_t>(frame)) * 1099511628211ULL;
  hash |= 1;
  for (std::size_t i = hash % kSitesMax, tries = 0; tries < 64; i = (i + 1) % kSitesMax, ++tries) {
    std::uint64_t found = 0;
    if (sites[i].hash.compare_exchange_strong(found, hash)) sites[i].stack = stack;
    if (found != 0 && found != hash) continue;
    ++sites[i].count;
    return;
  }
}

void note() {
  if (own_place == kThreadsMax) own_place = std::min(threads.fetch_add(1), kThreadsMax - 1);
  calls[own_place].fetch_add(1, std::memory_order_relaxed);
  if (watching.load(std::memory_order_relaxed) && !inside) note_stack();
}

}  // namespace

extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* block, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);

void* malloc(std::size_t size) {
  note();
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  note();
  return __libc_calloc(count, size);
}
void* realloc(void* block, std::size_t size) {
  note();
  return __libc_realloc(block, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  note();
  return __libc_memalign(alignment, size);
}
void* memalign(std::size_t alignment, std::size_t size) {
  note();
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** block, std::size_t alignment, std::size_t size) {
  note();
  *block = __libc_memalign(alignment, size);
  return *block == nullptr ? ENOMEM : 0;
}
}

using namespace troupe;

namespace {

struct Options {
  std::string config;
  std::vector<std::string> sets;
  int steps = 10, warm_up = 10, sites = 0;
};

struct Counts {
  std::uint64_t loop = 0, others = 0;
};
Counts counted() {
  Counts all{calls[0].load(), 0};
  for (std::size_t i = 1; i < kThreadsMax; ++i) all.others += calls[i].load();
  return all;
}

// Runs warm-up and steps; `at` is called after each step with its number.
template <typename At>
void run(const Config& config, bool profiled, const std::string& folder, At at) {
  WorldOptions options;
  options.corpus = open_corpus(config);
  options.profiled = profiled;
  options.run_folder = folder;
  World world(config, options);
  world.recover({});
  std::int64_t step = 0;
  world.run([&](const Report& report) {
    if (report.kind == "step") at(world, ++step);
  });
}

void print_sites(int count, int steps) {
  std::vector<const Site*> all;
  for (const Site& site : sites)
    if (site.count > 0) all.push_back(&site);
  std::sort(all.begin(), all.end(), [](const Site* a, const Site* b) { return a->count > b->count; });
  Dl_info self{};
  dladdr(reinterpret_cast<void*>(&counted), &self);
  for (std::size_t i = 0; i < std::min<std::size_t>(all.size(), static_cast<std::size_t>(count)); ++i) {
    fmt::print("{:.1f} a step:", static_cast<double>(all[i]->count.load()) / steps);
    for (void* const frame : all[i]->stack) {
      Dl_info info{};
      if (frame == nullptr || dladdr(frame, &info) == 0) continue;
      if (info.dli_fbase == self.dli_fbase)
        fmt::print(" {:#x}", static_cast<const char*>(frame) - static_cast<const char*>(info.dli_fbase));
      else
        fmt::print(" {}", info.dli_sname != nullptr ? info.dli_sname : "?");
    }
    fmt::print("\n");
  }
}

void measure(const Options& options) {
  std::vector<std::string> sets = options.sets;
  for (const char* off : {"evaluate.every_steps=0", "evaluate.exact_match_problems=0", "evaluate.tokens_max=1",
                          "checkpoint.every_steps=0"})
    sets.emplace_back(off);
  sets.push_back(fmt::format("train.steps={}", options.warm_up + options.steps + 1));
  Config config = load_config(options.config, sets);
  resolve_machine(config);
  const auto folder = std::filesystem::temp_directory_path() / fmt::format("troupe-allocations-{}", ::getpid());
  std::filesystem::create_directories(folder);

  Counts begin, end;
  void* warm[4];
  ::backtrace(warm, 4);  // asks for memory the first time
  run(config, false, folder, [&](World&, std::int64_t step) {
    if (step == options.warm_up) {
      begin = counted();
      watching = options.sites > 0;
    }
    if (step != options.warm_up + options.steps) return;
    watching = false;
    end = counted();
  });
  double messages = 0, ops = 0;
  run(config, true, "", [&](World& world, std::int64_t step) {
    if (step == options.warm_up) world.clear_profile();
    if (step != options.warm_up + options.steps) return;
    for (const auto& [key, time] : world.handler_profile().times) messages += static_cast<double>(time.count);
    const OpProfile profile = world.op_profile();
    for (const auto& [key, time] : profile.times()) ops += static_cast<double>(time.count);
  });
  std::filesystem::remove_all(folder);

  const double steps = options.steps;
  const double loop = static_cast<double>(end.loop - begin.loop),
               others = static_cast<double>(end.others - begin.others);
  fmt::print("a step: {:.0f} messages, {:.0f} ops; allocations: {:.1f} on the loop thread, {:.1f} on the others\n",
             messages / steps, ops / steps, loop / steps, others / steps);
  fmt::print("allocations a message: {:.4f}; an op: {:.4f}\n", (loop + others) / messages, (loop + others) / ops);
  print_sites(options.sites, options.steps);
}

}  // namespace

// CONFIG [--set KEY=VALUE]... [--steps N] [--warm-up N] [--sites N]
int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto value = [&] { return std::string(i + 1 < argc ? argv[++i] : ""); };
    if (word == "--set")
      options.sets.push_back(value());
    else if (word == "--steps")
      options.steps = std::stoi(value());
    else if (word == "--warm-up")
      options.warm_up = std::stoi(value());
    else if (word == "--sites")
      options.sites = std::stoi(value());
    else
      options.config = word;
  }
  start_log("allocations", "", LogLevel::warning);
  try {
    measure(options);
  } catch (const std::exception& error) {
    fmt::print(stderr, "allocations: {}\n", error.what());
    return 1;
  }
  return 0;
}
