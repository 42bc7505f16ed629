#include "launcher/bench_hardware.h"

#include <fmt/chrono.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <set>

#include "actors/build_info.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "kernels/cpu/limits.h"
#include "launcher/bench_ops.h"
#include "launcher/config.h"
#include "launcher/loop.h"
#include "launcher/machine.h"
#include "launcher/pairs/meter.h"
#include "launcher/whole_file.h"
#include "messages/ucx.h"

namespace troupe {

namespace {

constexpr int kRepeats = 5;
constexpr double kGiga = 1e9;

// Of "/proc/cpuinfo" and "/proc/meminfo": what follows a key. Empty: it isn't there.
std::string value_of(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key)) {
      const auto begin = line.find_first_not_of(": \t", key.size());
      return begin == std::string::npos ? "" : line.substr(begin);
    }
  return "";
}

// Two processes, the way between them; whoever is asked to follow ends with the other.
class Way {
 public:
  explicit Way(const Config& config) : config_(config) {
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends_.data()) != 0)
      throw Error("can't make a pair of sockets: {}; raise the limit of open files", std::strerror(errno));
  }
  PairFigures measure() {
    const pid_t child = fork();
    if (child < 0) throw Error("can't start a second process: {}", std::strerror(errno));
    if (child == 0) ::_exit(follow());
    close(ends_[1]);
    PayloadPool pool;
    const auto transport = make_ucx_transport({config_.layout.transport, config_.layout.interface}, pool);
    meet(ends_[0], *transport, 1);
    PairMeter meter(*transport, pool, {.peer = 1, .match = 1}, [] {});
    const PairFigures figures = meter.lead();
    close(ends_[0]);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    return figures;
  }

 private:
  static void meet(int fd, Transport& transport, std::uint32_t peer) {
    const std::string own = transport.local_address();
    std::array<char, 1 << 16> theirs{};
    if (send(fd, own.data(), own.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(own.size()))
      throw Error("the process at the other end is gone");
    const ssize_t got = recv(fd, theirs.data(), theirs.size(), 0);
    if (got <= 0) throw Error("the process at the other end is gone");
    transport.connect(peer, std::string(theirs.data(), static_cast<std::size_t>(got)));
  }
  int follow() {
    try {
      close(ends_[0]);
      PayloadPool pool;
      const auto transport = make_ucx_transport({config_.layout.transport, config_.layout.interface}, pool);
      meet(ends_[1], *transport, 0);
      PairMeter(*transport, pool, {.peer = 0, .match = 1}, [] {}).follow();
      return 0;
    } catch (const std::exception& problem) {
      std::fprintf(stderr, "troupe: the way within this machine: %s\n", problem.what());
      return 1;
    }
  }
  const Config& config_;
  std::array<int, 2> ends_{-1, -1};
};

double now() { return static_cast<double>(monotonic_ns()) * 1e-9; }

void say(const char* what) { std::fprintf(stderr, "measuring %s\n", what); }

struct Measured {
  HardwareConfig hardware;
  std::set<std::string> keys;  // that were measured
  template <typename T>
  void set(const char* key, T HardwareConfig::*member, T value) {
    hardware.*member = value;
    keys.insert(key);
  }
};

using H = HardwareConfig;

void measure_processor(Measured& m) {
  say("arithmetic in registers");
  m.set("float32_gflops", &H::float32_gflops, cpu::peak_float32_gflops(now));
  const double pairs = cpu::peak_bfloat16_gflops(now);
  m.set("bfloat16_gflops", &H::bfloat16_gflops, pairs > 0 ? pairs : m.hardware.float32_gflops);
  m.set("fp8_gflops", &H::fp8_gflops, m.hardware.float32_gflops);  // computed in float32
  say("memory");
  m.set("memory_gbytes_per_second", &H::memory_gbytes_per_second, cpu::peak_memory_gbytes_per_second(1, now));
  m.set("compute_threads", &H::compute_threads, usable_cores());
  m.set("memory_gbytes", &H::memory_gbytes, std::strtod(value_of("/proc/meminfo", "MemTotal").c_str(), nullptr) / 1e6);
  m.set("host_gbytes", &H::host_gbytes, 0.0);
}

void measure_model(Measured& m, const Config& config) {
  say("the ops of a model");
  const ModelRates rates = model_rates(config, kRepeats);
  const double peak = config.is_mixed() ? m.hardware.bfloat16_gflops : m.hardware.float32_gflops;
  m.set("product_share", &H::product_share, std::min(1.0, rates.step_product_tflops * 1e3 / peak));
  m.set("memory_share", &H::memory_share,
        std::min(1.0, rates.copy_gbytes_per_second / m.hardware.memory_gbytes_per_second));
}

std::string list_of(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += fmt::format("{}\"{}\"", text.empty() ? "" : ", ", name);
  return "[" + text + "]";
}

std::vector<std::string> without(std::vector<std::string> names, const std::set<std::string>& measured) {
  std::erase_if(names, [&](const std::string& name) { return measured.contains(name); });
  return names;
}

std::string as_toml(const Measured& m, const std::string& like, const std::string& processor) {
  const H& h = m.hardware;
  std::string text = fmt::format(
      "# {}, as the plan, the bill and the forecast see it: written by `troupe bench hardware`. What could not be "
      "measured\n"
      "# there is taken from {}; see `vendor` and `assumed`.\nname = \"{}\"\nsource = \"{}, {} threads, {}\"\ndate = "
      "\"{}\"\n",
      processor, like, h.name, processor, h.compute_threads, build_version(), h.date);
  const auto line = [&](const char* key, double value) { text += fmt::format("{} = {:.4g}\n", key, value); };
  const auto real = [&](const char* key, double value) {
    const std::string shown = fmt::format("{:.4g}", value);
    text += fmt::format("{} = {}{}\n", key, shown, shown.find_first_of(".e") == std::string::npos ? ".0" : "");
  };
  real("float32_gflops", h.float32_gflops);
  real("bfloat16_gflops", h.bfloat16_gflops);
  real("fp8_gflops", h.fp8_gflops);
  real("memory_gbytes_per_second", h.memory_gbytes_per_second);
  line("compute_threads", h.compute_threads);
  real("memory_gbytes", h.memory_gbytes);
  real("host_gbytes", h.host_gbytes);
  line("devices_per_machine", h.devices_per_machine);
  real("product_share", h.product_share);
  real("memory_share", h.memory_share);
  real("inside_gbytes_per_second", h.inside_gbytes_per_second);
  real("inside_latency_us", h.inside_latency_us);
  real("between_gbytes_per_second", h.between_gbytes_per_second);
  real("between_latency_us", h.between_latency_us);
  real("dollars_per_hour", h.dollars_per_hour);
  real("spot_dollars_per_hour", h.spot_dollars_per_hour);
  real("preemptions_per_hour", h.preemptions_per_hour);
  text += fmt::format("vendor = {}\nmeasured = {}\nassumed = {}\n", list_of(without(h.vendor, m.keys)),
                      list_of({m.keys.begin(), m.keys.end()}), list_of(without(h.assumed, m.keys)));
  return text;
}

std::string today() { return fmt::format("{:%d %B %Y}", fmt::localtime(std::time(nullptr))); }

}  // namespace

int bench_hardware(const BenchHardwareOptions& options) {
  expect_place_for("--out", options.out);
  start_log("troupe", "", LogLevel::warning);
  const Config config = timed_config(options.config_path, options.sets, "");
  const bool gpu = config.device.kind == "cuda";
  const std::string like = !options.like.empty() ? options.like : gpu ? "h100" : "cpu";
  Measured m;
  m.hardware = load_hardware(like).hardware;
  m.hardware.date = today();
  say("the way between two processes of this machine");
  const PairFigures way = Way(config).measure();  // first: it starts a process, which has no threads to lose
  m.set("inside_latency_us", &H::inside_latency_us, way.half_trip_us);
  m.set("inside_gbytes_per_second", &H::inside_gbytes_per_second, std::min(way.out, way.in) / kGiga);
  if (!gpu) measure_processor(m);
  measure_model(m, config);
  const std::string processor = gpu ? kind_of_machine(config) : value_of("/proc/cpuinfo", "model name");
  m.hardware.name = options.name.empty() ? fmt::format("{}-here", gpu ? like : "cpu") : options.name;
  const std::string text = as_toml(m, like, processor);
  if (options.out.empty()) return std::fputs(text.c_str(), stdout) < 0 ? 1 : 0;
  write_whole_file(options.out, text);
  fmt::print("{}: use it with --set device.hardware={} or --cluster {}\n", options.out, options.out, options.out);
  return 0;
}

}  // namespace troupe
