// Each part of the model runs by itself, one segment after another, and every op is timed by the device. What a device
// can do at its best is measured in the same run: a product that is large in every dimension, and a copy that no cache
// holds. The law: a figure is the median over the repeats, and every operand was computed from random values.
#include "launcher/bench_ops.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "actors/build_info.h"
#include "kernels/base/error.h"
#include "kernels/base/log.h"
#include "launcher/bench_model.h"
#include "launcher/config.h"
#include "launcher/machine.h"
#include "launcher/profile_report.h"
#include "launcher/whole_file.h"

namespace troupe {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20, kRowsShown = 45;

// Sizes for one kind of device: beyond every cache, and long enough to be timed.
struct Sizes {
  std::size_t apart = 0, copied = 0;  // bytes
  std::int64_t product = 0;           // rows, columns and depth
};
Sizes sizes_of(const Config& config) {
  return config.device.kind == "cuda" ? Sizes{256 * kMiB, 1024 * kMiB, 8192} : Sizes{64 * kMiB, 64 * kMiB, 768};
}

struct Ceilings {
  double product_tflops = 0, copy_gbytes_per_second = 0;
};

// Runs segments one by one and tells what their ops took.
class Bench {
 public:
  explicit Bench(MeasuredDevice& device) : device_(device) {}

  OpProfile run(SegmentClass phase, const Ops& ops) {
    device_.clear_profile();
    device_.submit({.key = {.segment_class = phase}, .ops = ops, .done = {}});
    std::vector<Completion> done;
    while (done.empty()) {
      pollfd ready{device_.completion_fd(), POLLIN, 0};
      CHECK(poll(&ready, 1, -1) == 1 || errno == EINTR, "waiting for a segment");
      device_.take_completions(done);
    }
    return device_.profile();
  }

  // The best of some runs of one op.
  OpTime best(const Op& op, int repeats) {
    OpTime least;
    for (int i = 0; i < repeats; ++i) {
      const OpProfile profile = run(SegmentClass::forward, {op});
      const OpTime& time = profile.times().begin()->second;
      if (i == 0 || time.ns < least.ns) least = time;
    }
    return least;
  }

 private:
  MeasuredDevice& device_;
};

Ceilings ceilings_of(MeasuredDevice& device, Bench& bench, const Config& config, int repeats) {
  const Sizes sizes = sizes_of(config);
  const Dtype act = activation_type(config);
  Ceilings ceilings;
  {
    const auto rows = static_cast<std::int64_t>(sizes.copied / 4096);
    const Memory memory = device.allocate(2 * sizes.copied, Place::device);
    Carver carver(memory.data);
    const Tensor from = carver.tensor(rows, 1024, Dtype::f32), to = carver.tensor(rows, 1024, Dtype::f32);
    bench.run(SegmentClass::forward, {Initialize{from, 1, 0, 1}});
    const OpTime time = bench.best(Copy{from, to}, repeats + 1);
    ceilings.copy_gbytes_per_second = time.cost.bytes / static_cast<double>(time.ns);
  }
  const std::int64_t n = sizes.product;
  const Memory memory = device.allocate(static_cast<std::size_t>(3 * n * n) * bytes_of(act), Place::device);
  Carver carver(memory.data);
  const Tensor a = carver.tensor(n, n, act), b = carver.tensor(n, n, act), c = carver.tensor(n, n, act);
  bench.run(SegmentClass::forward, {Initialize{a, 2, 0, 1}, Initialize{b, 3, 0, 1}});
  const OpTime time = bench.best(Product{.a = a, .b = b, .c = c, .transpose_b = true}, repeats + 1);
  ceilings.product_tflops = time.cost.flops / static_cast<double>(time.ns) * 1e-3;
  return ceilings;
}

// An op of a part, over all repeats.
struct Row {
  std::string part;
  OpKey key;
  OpTime once;             // of the part: ns counts for nothing
  std::vector<double> ns;  // one a repeat: of all its ops
  double times = 0;        // of the part in a step

  double median_ns() const {
    std::vector<double> sorted = ns;
    std::sort(sorted.begin(), sorted.end());
    return std::max(1.0, (sorted[(sorted.size() - 1) / 2] + sorted[sorted.size() / 2]) / 2);
  }
  double us_each() const { return median_ns() * 1e-3 / static_cast<double>(once.count); }
  double tflops() const { return once.cost.flops / median_ns() * 1e-3; }
  double gbytes_per_second() const { return once.cost.bytes / median_ns(); }
  double step_ms() const { return median_ns() * 1e-6 * times; }
  bool by_arithmetic(const Ceilings& c) const { return product_ns(c) > copy_ns(c); }
  // The least time that the ceilings allow, over the time that it took.
  double share(const Ceilings& c) const { return std::max(product_ns(c), copy_ns(c)) / median_ns(); }

 private:
  double product_ns(const Ceilings& c) const { return once.cost.flops * 1e-3 / c.product_tflops; }
  double copy_ns(const Ceilings& c) const { return once.cost.bytes / c.copy_gbytes_per_second; }
};

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

// The kinds of op that are wanted: all, or those named. Throws Error: a name that no op has.
std::vector<bool> wanted_kinds(const std::vector<std::string>& only) {
  constexpr std::size_t kKinds = std::variant_size_v<Op>;
  std::vector<bool> wanted(kKinds, only.empty());
  for (const std::string& name : only) {
    std::string all;
    bool found = false;
    for (std::size_t kind = 0; kind < kKinds; ++kind) {
      all += fmt::format("{}{}", kind == 0 ? "" : ", ", op_name(kind));
      if (lower(op_name(kind)) != lower(name)) continue;
      wanted[kind] = found = true;
    }
    if (!found) throw Error("--only {}: there is no such op, must be of {}", name, all);
  }
  return wanted;
}

Ops only_of(const Ops& ops, const std::vector<bool>& wanted) {
  Ops some;
  std::copy_if(ops.begin(), ops.end(), std::back_inserter(some), [&](const Op& op) { return wanted[op.index()]; });
  return some;
}

std::vector<Row> measure(Bench& bench, const BenchModel& model, const std::vector<bool>& wanted, int repeats) {
  for (const Ops& ops : model.values()) bench.run(SegmentClass::apply, ops);
  // Every microbatch once, whole: what an op reads was computed, and what a device prepares is there.
  for (std::size_t m = 0; m < model.microbatches(); ++m)
    for (const BenchPart& part : model.parts(m)) bench.run(part.phase, part.ops);
  if (!std::isfinite(model.loss(0))) throw Error("the loss of the model is {}: some op is wrong", model.loss(0));
  std::map<std::pair<std::string, OpKey>, Row> rows;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    for (const BenchPart& part : model.parts(static_cast<std::size_t>(repeat) % model.microbatches())) {
      const Ops ops = only_of(part.ops, wanted);
      if (ops.empty()) continue;
      const OpProfile profile = bench.run(part.phase, ops);
      for (const auto& [key, time] : profile.times()) {
        Row& row = rows[{part.name, key}];
        row.part = part.name, row.key = key, row.once = time, row.times = part.times;
        row.ns.push_back(static_cast<double>(time.ns));
      }
    }
  }
  std::vector<Row> all;
  for (auto& [name, row] : rows) all.push_back(std::move(row));
  std::sort(all.begin(), all.end(), [](const Row& a, const Row& b) { return a.step_ms() > b.step_ms(); });
  return all;
}

double step_ms(const std::vector<Row>& rows) {
  double sum = 0;
  for (const Row& row : rows) sum += row.step_ms();
  return sum;
}

double tokens_per_step(const Config& config) {
  return static_cast<double>(config.train.batch_sequences) * config.train.sequence_length;
}

std::string head(const Config& config, const Ceilings& c) {
  // The measured product is of bfloat16 in FP8 runs too.
  const double gflops = config.is_mixed() ? config.hardware.bfloat16_gflops : config.hardware.float32_gflops;
  return fmt::format(
      "{} on {}, {}, microbatches of {} x {} tokens\n"
      "ceilings, by this program's own kernels: product {:.4g} TFLOP/s, copy {:.4g} GB/s, read and written; the "
      "hardware file ({}) says {:.4g} and {:.4g}\n\n",
      config.name, kind_of_machine(config), config.train.dtype, config.microbatch_sequences(),
      config.train.sequence_length, c.product_tflops, c.copy_gbytes_per_second, config.hardware.name, gflops * 1e-3,
      config.hardware.memory_gbytes_per_second);
}

std::string table(const std::vector<Row>& rows, const Ceilings& c) {
  const double all = step_ms(rows);
  std::string text =
      fmt::format("{:<19}{:<19}{:<10}{:<24}{:>6}{:>11}{:>10}{:>10}{:>16}{:>11}{:>9}\n", "part", "op", "phase",
                  "rows x [sum] x cols", "ops", "us each", "TFLOP/s", "GB/s", "of ceiling", "ms a step", "share");
  for (std::size_t i = 0; i < std::min(rows.size(), kRowsShown); ++i) {
    const Row& row = rows[i];
    text += fmt::format("{:<19}{:<19}{:<10}{:<24}{:>6}{:>11.2f}{:>10.4g}{:>10.4g}{:>7.1f} % {:<7}{:>11.2f}{:>7.1f} %\n",
                        row.part, op_name(row.key.kind), to_string(row.key.phase), shape_of(row.key, row.once),
                        row.once.count, row.us_each(), row.tflops(), row.gbytes_per_second(), 100 * row.share(c),
                        row.by_arithmetic(c) ? "product" : "copy", row.step_ms(), 100 * row.step_ms() / all);
  }
  if (rows.size() > kRowsShown) text += fmt::format("{} others, less each\n", rows.size() - kRowsShown);
  return text;
}

std::string tail(const Config& config, const std::vector<Row>& rows) {
  const double ms = step_ms(rows);
  return fmt::format("\na step's ops one after another: {:.2f} ms, {:.0f} tokens/s without any wait\n", ms,
                     tokens_per_step(config) * 1000 / ms);
}

nlohmann::json as_json(const Config& config, const std::vector<Row>& rows, const Ceilings& c) {
  nlohmann::json ops = nlohmann::json::array();
  for (const Row& row : rows)
    ops.push_back({{"part", row.part},
                   {"op", op_name(row.key.kind)},
                   {"phase", to_string(row.key.phase)},
                   {"shape", shape_of(row.key, row.once)},
                   {"ops", row.once.count},
                   {"us_each", row.us_each()},
                   {"tflops", row.tflops()},
                   {"gbytes_per_second", row.gbytes_per_second()},
                   {"share_of_ceiling", row.share(c)},
                   {"bound", row.by_arithmetic(c) ? "product" : "copy"},
                   {"step_ms", row.step_ms()}});
  return {{"config", config.name},
          {"machine", kind_of_machine(config)},
          {"version", build_version()},
          {"dtype", config.train.dtype},
          {"ceilings", {{"product_tflops", c.product_tflops}, {"copy_gbytes_per_second", c.copy_gbytes_per_second}}},
          {"step_ms", step_ms(rows)},
          {"tokens_per_second", tokens_per_step(config) * 1000 / step_ms(rows)},
          {"ops", ops}};
}

}  // namespace

// One compute thread: an op by itself is what is timed.
Config timed_config(const std::string& named, const std::vector<std::string>& given, const std::string& device) {
  std::vector<std::string> sets = given;
  if (!device.empty()) sets.push_back("device.kind=" + device);
  std::string path = named;
  if (path.empty()) {
    Config machine;
    machine.device.kind = device.empty() ? "auto" : device;
    resolve_machine(machine);
    path = machine.device.kind == "cuda" ? "configs/moe_0b85.toml" : "configs/quickstart.toml";
    if (!fs::exists(path))
      throw Error("there is no {} here: name a CONFIG, or go to the folder that has configs/", path);
  }
  Config config = load_config(path, sets);
  config.device.threads = 1;
  resolve_machine(config);
  return config;
}

void expect_place_for(const std::string& option, const std::string& path) {
  if (path.empty()) return;
  std::error_code failed;
  const std::string folder = fs::path(path).parent_path().string();
  if (!folder.empty() && !fs::is_directory(folder, failed))
    throw Error("{} {}: there is no folder {}; make it or name another", option, path, folder);
  if (fs::exists(path, failed) && !fs::is_regular_file(path, failed))
    throw Error("{} {}: is a folder or a device, must be a file; name another", option, path);
}

ModelRates model_rates(const Config& config, int repeats) {
  const std::unique_ptr<MeasuredDevice> device = open_device(config, 0, true);
  Bench bench(*device);
  ModelRates rates;
  rates.copy_gbytes_per_second = ceilings_of(*device, bench, config, repeats).copy_gbytes_per_second;
  const BenchModel model(*device, config, sizes_of(config).apart);
  double flops = 0, ns = 0;
  for (const Row& row : measure(bench, model, wanted_kinds({"Product", "GroupedProduct"}), repeats)) {
    flops += row.once.cost.flops * row.times;
    ns += row.median_ns() * row.times;
  }
  if (ns > 0) rates.step_product_tflops = flops / ns * 1e-3;
  return rates;
}

int bench_ops(const BenchOptions& options) {
  const std::vector<bool> wanted = wanted_kinds(options.only);
  expect_place_for("--json", options.json);
  const Config config = timed_config(options.config_path, options.sets, options.device);
  start_log("troupe", "", LogLevel::warning);
  const std::unique_ptr<MeasuredDevice> device = open_device(config, 0, true);
  Bench bench(*device);
  const Ceilings ceilings = ceilings_of(*device, bench, config, options.repeats);
  fmt::print("{}", head(config, ceilings));
  std::fflush(stdout);
  const BenchModel model(*device, config, sizes_of(config).apart);
  const std::vector<Row> rows = measure(bench, model, wanted, options.repeats);
  if (rows.empty()) throw Error("--only: this model has none of these ops; leave --only out to see what it has");
  fmt::print("{}{}", table(rows, ceilings), options.only.empty() ? tail(config, rows) : "");
  if (!options.json.empty()) write_whole_file(options.json, as_json(config, rows, ceilings).dump(1) + "\n");
  return 0;
}

}  // namespace troupe
