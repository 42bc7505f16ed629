#include "launcher/doctor_findings.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace troupe {

namespace {

constexpr std::uint64_t kKiB = 1024, kMiB = 1024 * kKiB, kGiB = 1024 * kMiB;
// What UCX 1.13.1 takes of /dev/shm for a node (measured: 4,208 KiB), and what it takes beside with many peers.
constexpr std::uint64_t kSharedPerNode = 5 * kMiB;
// A run of two nodes was seen to start with 24 descriptors and to fail with 20; a launcher takes two more for each node.
constexpr std::uint64_t kFilesLeast = 24, kFilesEnough = 256;
constexpr std::uint64_t kMemoryLeast = 64 * kMiB;  // a node without a model
constexpr std::uint64_t kDiskLeast = 16 * kMiB;
constexpr double kSlowDisk = 20e6;  // bytes a second: a checkpoint of 1 GB takes most of a minute

// What each level adds to the one below, as /proc/cpuinfo spells it.
const std::array<const char*, 17> kLevel3 = {"cx16",   "lahf_lm", "popcnt", "pni",   "ssse3", "sse4_1",
                                             "sse4_2", "avx",     "avx2",   "bmi1",  "bmi2",  "f16c",
                                             "fma",    "abm",     "movbe",  "xsave", "sse2"};
const std::array<const char*, 5> kLevel4 = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"};

Finding stops(std::string sentence) { return {.stops_runs = true, .sentence = std::move(sentence)}; }
Finding advice(std::string sentence) { return {.stops_runs = false, .sentence = std::move(sentence)}; }

void add(Findings& all, Findings more) {
  for (Finding& finding : more) all.push_back(std::move(finding));
}

// The oldest driver for a version of CUDA, as NVIDIA's release notes have it.
int driver_for(int runtime) {
  switch (runtime / 1000) {
    case 11:
      return 450;
    case 12:
      return 525;
    default:
      return 580;
  }
}

}  // namespace

// ---- Facts that are derived -------------------------------------------------------------------------------------

std::string size_text(std::uint64_t size) {
  static constexpr std::array<const char*, 5> kUnits = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(size);
  std::size_t unit = 0;
  while (value >= 1000 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  const bool is_whole = value == std::floor(value) || value >= 100;
  return fmt::format("{:.{}f} {}", value, is_whole ? 0 : 1, kUnits[unit]);
}

std::string cuda_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

bool has_flag(const ProcessorFacts& processor, const std::string& flag) {
  return std::find(processor.flags.begin(), processor.flags.end(), flag) != processor.flags.end();
}

std::vector<std::string> missing_flags(const ProcessorFacts& processor, const std::string& level) {
  std::vector<std::string> missing;
  const auto need = [&](const char* flag) {
    if (!has_flag(processor, flag)) missing.emplace_back(flag);
  };
  std::for_each(kLevel3.begin(), kLevel3.end(), need);
  if (level == "x86-64-v4") std::for_each(kLevel4.begin(), kLevel4.end(), need);
  return missing;
}

int cores_usable(const ProcessorFacts& processor) {
  int cores = std::max(1, processor.cores);
  if (processor.cores_allowed > 0) cores = std::min(cores, processor.cores_allowed);
  if (processor.cores_quota > 0) cores = std::min(cores, static_cast<int>(std::ceil(processor.cores_quota)));
  return cores;
}

std::uint64_t memory_usable(const MemoryFacts& memory) {
  if (memory.group_limit == 0) return memory.available;
  const std::uint64_t left = memory.group_limit - std::min(memory.group_limit, memory.group_used);
  return std::min(memory.available, left);
}

bool built_with_cuda(const Gpus& gpus) { return gpus.runtime > 0; }

int usable_gpus(const Gpus& gpus) {
  return static_cast<int>(
      std::count_if(gpus.all.begin(), gpus.all.end(), [](const Gpu& g) { return g.problem.empty(); }));
}

std::string driver_problem(const GpuFacts& gpu) {
  const Gpus& gpus = gpu.gpus;
  if (!built_with_cuda(gpus) || gpus.driver / 1000 >= gpus.runtime / 1000) return "";
  const int needed = driver_for(gpus.runtime);
  if (gpus.driver > 0)
    return fmt::format("the driver is for CUDA {} at the most and this program needs {}: install driver {} or newer",
                       cuda_text(gpus.driver), cuda_text(gpus.runtime), needed);
  if (gpu.module.empty()) return fmt::format("no NVIDIA driver is loaded: install driver {} or newer", needed);
  return fmt::format(
      "NVIDIA's kernel module {} is loaded but libcuda.so.1 is not found: in a container, start it with "
      "its GPUs (docker run --gpus all), else install the driver's libraries",
      gpu.module);
}

std::uint64_t nodes_fitting(const TransportFacts& transport) {
  return transport.has_shared && transport.shared_writable ? transport.shared_free / kSharedPerNode : 0;
}

// rc_verbs, rc_mlx5, dc_mlx5, ud_verbs, ud_mlx5.
bool is_infiniband(const std::string& transport) {
  return transport.starts_with("rc") || transport.starts_with("dc") || transport.starts_with("ud");
}

// Fast: of several disks or in memory. Slow: a checkpoint of 10 GB takes two minutes and more.
std::string speed_class(double bytes_per_second) {
  return bytes_per_second >= 1e9 ? "fast" : bytes_per_second >= 80e6 ? "fair" : "slow";
}

// ---- Findings -------------------------------------------------------------------------------------------------------

Findings findings_of(const ProcessorFacts& processor) {
  if (processor.flags.empty())
    return {
        advice("processor: /proc/cpuinfo does not tell its instructions, so whether a run would die of an illegal one "
               "is unknown: mount /proc")};
  const std::vector<std::string> missing = missing_flags(processor, processor.built_for);
  if (missing.empty()) {
    if (processor.built_for == "x86-64-v3" && missing_flags(processor, "x86-64-v4").empty())
      return {
          advice("processor: it has AVX-512, which this build leaves alone: configure with -DTROUPE_MARCH=x86-64-v4, "
                 "as ./dev build does")};
    return {};
  }
  const bool has_level3 = missing_flags(processor, "x86-64-v3").empty();
  return {stops(fmt::format("processor: {} lacks {}, so a run would die of an illegal instruction: {}", processor.model,
                            fmt::join(missing, ", "),
                            has_level3 ? "configure with -DTROUPE_MARCH=x86-64-v3 and build again"
                                       : "use a machine with AVX2 and FMA (x86-64-v3)"))};
}

Findings findings_of(const MemoryFacts& memory) {
  const std::uint64_t usable = memory_usable(memory);
  if (memory.total == 0 || usable >= kGiB) return {};
  const std::string sentence = fmt::format("memory: {} are left{}: `troupe plan CONFIG` tells what a run takes",
                                           size_text(usable), memory.group_limit > 0 ? " to this control group" : "");
  return {usable < kMemoryLeast ? stops(sentence) : advice(sentence)};
}

namespace {

// What to do about a GPU that can't be used. A node takes the GPU whose number is its own, in turn, whether that one can
// be used or not; that none has kernels is seen by device.kind = "auto", that none can be opened isn't.
Finding unusable(const GpuFacts& facts, std::size_t index) {
  const std::vector<Gpu>& all = facts.gpus.all;
  const std::string what = fmt::format("GPU {} ({}) {}", index, all[index].name, all[index].problem);
  std::vector<std::size_t> good;
  for (std::size_t i = 0; i < all.size(); ++i)
    if (all[i].problem.empty()) good.push_back(i);
  if (facts.chosen.kind != "cuda") return advice(what + ": until it can be used runs take the processor");
  if (!good.empty())
    return stops(
        fmt::format("{}, and nodes take GPUs in turn: hide it (CUDA_VISIBLE_DEVICES={})", what, fmt::join(good, ",")));
  return stops(what + ", and a run would try: `nvidia-smi` tells who holds it; or set device.kind = \"cpu\"");
}

Findings findings_of_devices(const GpuFacts& facts) {
  Findings found;
  for (std::size_t i = 0; i < facts.gpus.all.size(); ++i) {
    const Gpu& gpu = facts.gpus.all[i];
    if (!gpu.problem.empty())
      found.push_back(unusable(facts, i));
    else if (gpu.free > 0 && gpu.free < gpu.memory / 10)
      found.push_back(advice(fmt::format("GPU {} ({}) has only {} of {} free: `nvidia-smi` tells whose the rest is", i,
                                         gpu.name, size_text(gpu.free), size_text(gpu.memory))));
  }
  return found;
}

}  // namespace

Findings findings_of(const GpuFacts& gpu) {
  if (gpu.late)
    return {
        stops("GPUs: CUDA's driver does not answer in time, and runs would wait for it too: try again (it may only be "
              "slow to load; `nvidia-smi -pm 1` keeps it loaded), or hide the GPUs (CUDA_VISIBLE_DEVICES=)")};
  const bool is_expected = gpu.hardware > 0 || gpu.gpus.driver > 0 || !gpu.module.empty() || gpu.has_files;
  if (!built_with_cuda(gpu.gpus)) {
    if (!is_expected) return {};
    return {
        advice("GPUs: there are some, but this program was built without CUDA: build it where nvcc is on the path")};
  }
  if (!gpu.gpus.all.empty()) return findings_of_devices(gpu);
  if (!is_expected) return {};
  if (const std::string problem = driver_problem(gpu); !problem.empty()) return {advice("GPUs: " + problem)};
  if (!gpu.files_refused.empty())
    return {
        advice(fmt::format("GPUs: this user may not open {}: join the group that may (ls -l shows it), or have the "
                           "machine's owner change their mode",
                           fmt::join(gpu.files_refused, ", ")))};
  return {
      advice(fmt::format("GPUs: CUDA finds none ({}) though they are there: look at CUDA_VISIBLE_DEVICES, and in "
                         "a container whether it was started with its GPUs (docker run --gpus all)",
                         gpu.gpus.problem))};
}

// Whether one node can start was tried; whether several find room is reckoned.
Findings findings_of(const TransportFacts& transport, int nodes) {
  if (transport.late) return {stops("transport: UCX does not answer, and runs of several nodes would wait for it too")};
  const std::string instead =
      transport.ucx.tcp_problem.empty() ? ", or set layout.transport = \"tcp\", which works here" : "";
  const std::string room = "in a container, start it with more (docker run --shm-size=1g), else mount a tmpfs there";
  const auto tell = [&](const std::string& why, const std::string& remedy) {
    return Findings{
        stops(fmt::format("transport: {}, so runs of several nodes can't start: {}{}", why, remedy, instead))};
  };
  const bool is_refused = !transport.ucx.auto_problem.empty();
  if (is_refused && !transport.has_shared) return tell("/dev/shm is not there", room);
  if (is_refused && !transport.shared_writable) return tell("/dev/shm can't be written to", room);
  if (transport.has_shared && transport.shared_writable &&
      nodes_fitting(transport) < static_cast<std::uint64_t>(std::max(2, nodes)))
    return tell(fmt::format("/dev/shm has {} free and each node takes {}", size_text(transport.shared_free),
                            size_text(kSharedPerNode)),
                room);
  if (is_refused) return tell("UCX refuses", transport.ucx.auto_problem);
  return {};
}

Findings findings_between_hosts(const TransportFacts& transport) {
  if (transport.late) return {stops("transport: UCX does not answer, and runs of several nodes would wait for it too")};
  if (transport.ucx.any_problem.empty()) return {};
  return {stops(
      fmt::format("transport: UCX refuses, so runs of several hosts can't start: {}", transport.ucx.any_problem))};
}

Findings findings_of(const LimitFacts& limits) {
  if (limits.files >= kFilesEnough) return {};
  const bool is_too_few = limits.files < kFilesLeast;
  const std::string sentence = fmt::format(
      "limits: {} open files a process are {} for runs of several nodes: {}", limits.files,
      is_too_few ? "too few" : "few",
      limits.files_hard >= kFilesEnough ? fmt::format("ulimit -n {}", std::min<std::uint64_t>(limits.files_hard, 4096))
                                        : "have the machine's owner raise the limit (nofile), to 1024 or more");
  return {is_too_few ? stops(sentence) : advice(sentence)};
}

Findings findings_of(const JudgeFacts& judge) {
  if (judge.late) return {advice("judges: one was started and did not answer in time")};
  if (!judge.problem.empty())
    return {stops(fmt::format("judges: none can be started, so runs with rollouts can't: {}", judge.problem))};
  if (judge.notes.empty()) return {};
  const std::string locks =
      judge.locks.empty() ? "" : fmt::format(" ({}: root may change it by sysctl)", fmt::join(judge.locks, ", "));
  return {advice(
      fmt::format("judges: {}{}; give judge.command only what may do that", fmt::join(judge.notes, "; "), locks))};
}

Findings findings_of(const DiskFacts& disk) {
  if (disk.late) return {stops("disk: the working folder's file system does not answer: go to another one")};
  if (!disk.problem.empty())
    return {
        stops(fmt::format("disk: nothing can be written to {}, where runs/ would be ({}): go to another folder, or "
                          "give --out",
                          disk.folder, disk.problem))};
  Findings found;
  const std::string sentence =
      fmt::format("disk: {} has only {} free, and a checkpoint takes 12 bytes a parameter: make room, or give --out",
                  disk.folder, size_text(disk.free));
  if (disk.free < kGiB) found.push_back(disk.free < kDiskLeast ? stops(sentence) : advice(sentence));
  if (disk.bytes_per_second > 0 && disk.bytes_per_second < kSlowDisk)
    found.push_back(
        advice(fmt::format("disk: {} takes {:.1f} MB a second, so checkpoints will take long: give --out a "
                           "folder on another disk",
                           disk.folder, disk.bytes_per_second * 1e-6)));
  return found;
}

Findings findings_of(const MachineFacts& machine, bool between_hosts) {
  Findings all = findings_of(machine.processor);
  const int usable = cores_usable(machine.processor);
  const DeviceConfig& chosen = machine.gpu.chosen;
  if (!machine.gpu.late && chosen.kind == "cpu" && chosen.threads > usable)
    all.push_back(
        advice(fmt::format("processor: a run would start {} threads where {} may be used: set device.threads = {}",
                           chosen.threads, usable == 1 ? "one core" : fmt::format("{} cores", usable), usable)));
  add(all, findings_of(machine.memory));
  add(all, findings_of(machine.gpu));
  add(all, between_hosts ? findings_between_hosts(machine.transport)
                         : findings_of(machine.transport, usable_gpus(machine.gpu.gpus)));
  add(all, findings_of(machine.limits));
  add(all, findings_of(machine.judge));
  add(all, findings_of(machine.disk));
  std::stable_partition(all.begin(), all.end(), [](const Finding& finding) { return finding.stops_runs; });
  return all;
}

bool can_run(const Findings& findings) {
  return std::none_of(findings.begin(), findings.end(), [](const Finding& finding) { return finding.stops_runs; });
}

}  // namespace troupe
