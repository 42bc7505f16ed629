// The screen: a section is a word and its lines; the findings come last, where a terminal shows them.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>

#include "launcher/doctor_report.h"

namespace troupe {

namespace {

using Lines = std::vector<std::string>;

constexpr const char* kLate = "no answer in time";

std::string yes_no(bool yes) { return yes ? "yes" : "no"; }

Lines processor_lines(const ProcessorFacts& processor) {
  std::string cores = fmt::format("{} cores", processor.cores);
  if (cores_usable(processor) < processor.cores) {
    cores += fmt::format(", {} of them for this process", cores_usable(processor));
    if (processor.cores_quota > 0) cores += fmt::format(" (its control group has {:.3g})", processor.cores_quota);
  }
  const std::vector<std::string> missing = missing_flags(processor, processor.built_for);
  std::string instructions = fmt::format("{} (this build): all of it is there", processor.built_for);
  if (!missing.empty())
    instructions = fmt::format("{} (this build) lacks {}", processor.built_for, fmt::join(missing, ", "));
  if (processor.flags.empty())
    instructions = fmt::format("{} (this build): unknown whether it is there", processor.built_for);
  const bool has_dot = has_flag(processor, "avx512_bf16");
  return {
      fmt::format("{}; {}", processor.model, cores),
      fmt::format("{}; bfloat16 dot products (avx512_bf16): {}", instructions, has_dot ? "yes, not used yet" : "no")};
}

Lines memory_lines(const MemoryFacts& memory) {
  const std::string group = memory.group_limit == 0
                                ? "no limit by a control group"
                                : fmt::format("the control group has {}, {} of it in use",
                                              size_text(memory.group_limit), size_text(memory.group_used));
  if (memory.total == 0) return {"unknown: /proc/meminfo can't be read"};
  return {fmt::format("{}, {} available; {}", size_text(memory.total), size_text(memory.available), group)};
}

std::string why_no_gpu(const GpuFacts& gpu) {
  if (!built_with_cuda(gpu.gpus)) return "none: " + gpu.gpus.problem;
  if (gpu.hardware == 0 && gpu.module.empty() && !gpu.has_files) return "none: the machine has none of NVIDIA's";
  const std::string problem = driver_problem(gpu);
  return "none: " + (problem.empty() ? gpu.gpus.problem : problem);
}

Lines gpu_lines(const GpuFacts& gpu) {
  if (gpu.late) return {kLate};
  Lines lines;
  if (gpu.gpus.all.empty()) lines.push_back(why_no_gpu(gpu));
  for (std::size_t i = 0; i < gpu.gpus.all.size(); ++i) {
    const Gpu& one = gpu.gpus.all[i];
    const std::string free = one.free > 0 ? size_text(one.free) + " free of " : "";
    lines.push_back(fmt::format("{}: {}, {}{}, capability {}.{}, {}", i, one.name, free, size_text(one.memory),
                                one.major, one.minor, one.problem.empty() ? "usable" : one.problem));
  }
  if (!built_with_cuda(gpu.gpus)) return lines;
  const std::string ours = fmt::format("this program's CUDA is {}", cuda_text(gpu.gpus.runtime));
  if (gpu.gpus.driver == 0)
    lines.push_back("no driver; " + ours);
  else
    lines.push_back(fmt::format("driver {} for CUDA {} ({}); {}", gpu.module.empty() ? "(version unknown)" : gpu.module,
                                cuda_text(gpu.gpus.driver), driver_problem(gpu).empty() ? "new enough" : "too old",
                                ours));
  return lines;
}

Lines library_lines(const LibrariesFacts& libraries) {
  if (libraries.late) return {kLate};
  Lines words;
  for (const LibraryFacts& library : libraries.all)
    words.push_back(library.name + " " + (library.problem.empty() ? library.version : library.problem));
  return {fmt::format("{}: opened where a run asks for them", fmt::join(words, ", "))};
}

std::string devices_of(const UcxReport& ucx, bool (*belongs)(const UcxReport::Way&), bool by_device) {
  Lines names;
  for (const UcxReport::Way& way : ucx.ways) {
    const std::string& name = by_device ? way.device : way.transport;
    if (belongs(way) && std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "));
}

Lines transport_lines(const TransportFacts& transport) {
  if (transport.late) return {kLate};
  using Way = UcxReport::Way;
  const UcxReport& ucx = transport.ucx;
  const auto is_shared = [](const Way& way) { return way.device == "memory" && way.transport != "self"; };
  const auto is_tcp = [](const Way& way) { return way.transport == "tcp"; };
  const auto on_infiniband = [](const Way& way) { return is_infiniband(way.transport); };
  const bool has_cuda = std::find(ucx.memory_types.begin(), ucx.memory_types.end(), "cuda") != ucx.memory_types.end();
  Lines lines = {fmt::format("UCX {}; shared memory: {}; TCP: {}; InfiniBand: {}; CUDA memory: {}", ucx.version,
                             devices_of(ucx, is_shared, false), devices_of(ucx, is_tcp, true),
                             devices_of(ucx, on_infiniband, true), yes_no(has_cuda))};
  std::string chosen = "shared memory";
  if (!ucx.auto_small.empty()) chosen += fmt::format(", messages by {}", ucx.auto_small);
  if (!ucx.auto_large.empty()) chosen += fmt::format(", large ones by {}", ucx.auto_large);
  lines.push_back(fmt::format("layout.transport = \"auto\": {}", ucx.auto_problem.empty() ? chosen : "can't start"));
  if (!transport.has_shared)
    lines.emplace_back("/dev/shm is not there");
  else
    lines.push_back(fmt::format("/dev/shm: {}, {} free, {}", size_text(transport.shared_size),
                                size_text(transport.shared_free),
                                transport.shared_writable ? fmt::format("room for {} nodes", nodes_fitting(transport))
                                                          : "can't be written to"));
  return lines;
}

// How what only ops read gets from one node's GPU to another's.
Lines device_way_lines(const MachineFacts& machine) {
  if (machine.transport.late || machine.libraries.late || usable_gpus(machine.gpu.gpus) == 0) return {};
  const std::vector<std::string>& types = machine.transport.ucx.memory_types;
  const bool has_cuda = std::find(types.begin(), types.end(), "cuda") != types.end();
  const std::vector<LibraryFacts>& all = machine.libraries.all;
  const bool has_nccl = std::any_of(
      all.begin(), all.end(), [](const LibraryFacts& one) { return one.name == "libnccl" && one.problem.empty(); });
  return {fmt::format("layout.device_transport = \"auto\": rows go from GPU to GPU {}",
                      has_cuda   ? "by UCX"
                      : has_nccl ? "by NCCL within this machine, through pinned memory between machines"
                                 : "through pinned memory")};
}

Lines limit_lines(const LimitFacts& limits) {
  const auto text = [](std::uint64_t limit, const std::string& words) {
    return limit == std::numeric_limits<std::uint64_t>::max() ? "no limit" : words;
  };
  return {fmt::format("open files: {}; locked memory: {} (CUDA's pinned memory isn't counted)",
                      text(limits.files, std::to_string(limits.files)), text(limits.locked, size_text(limits.locked)))};
}

Lines judge_lines(const JudgeFacts& judge) {
  if (judge.late) return {kLate};
  if (!judge.problem.empty()) return {"can't be started"};
  return {judge.notes.empty() ? "commands are confined fully: no network, no files but their own, no other processes"
                              : "commands are not confined fully, see below; their limits hold"};
}

Lines disk_lines(const DiskFacts& disk) {
  if (disk.late) return {kLate};
  std::string speed = disk.problem.empty() ? "speed not measured" : "can't be written to";
  if (disk.bytes_per_second > 0)
    speed = fmt::format("writes {:.0f} MB a second to the disk itself: {}", disk.bytes_per_second * 1e-6,
                        speed_class(disk.bytes_per_second));
  return {fmt::format("{} ({}): {} free, {}", disk.folder, disk.filesystem, size_text(disk.free), speed)};
}

Lines use_lines(const MachineFacts& machine) {
  const GpuFacts& gpu = machine.gpu;
  if (gpu.late) return {"unknown, until CUDA answers"};
  const std::string device = gpu.chosen.kind == "cuda" ? fmt::format("device cuda, one GPU a node")
                                                       : fmt::format("device cpu, {} compute {}", gpu.chosen.threads,
                                                                     gpu.chosen.threads == 1 ? "thread" : "threads");
  return {device + "; nodes of this machine talk through " +
          (machine.transport.ucx.auto_problem.empty() && !machine.transport.late ? "shared memory" : "nothing yet")};
}

void add(std::string& text, const std::string& title, const Lines& lines) {
  for (std::size_t i = 0; i < lines.size(); ++i) text += fmt::format("{:<11}{}\n", i == 0 ? title : "", lines[i]);
}

}  // namespace

std::string doctor_text(const MachineFacts& machine, const Findings& findings) {
  std::string text = machine.version + "\n";
  add(text, "processor", processor_lines(machine.processor));
  add(text, "memory", memory_lines(machine.memory));
  add(text, "GPUs", gpu_lines(machine.gpu));
  add(text, "libraries", library_lines(machine.libraries));
  add(text, "transport", transport_lines(machine.transport));
  for (const std::string& line : device_way_lines(machine)) add(text, "", {line});
  add(text, "limits", limit_lines(machine.limits));
  add(text, "judges", judge_lines(machine.judge));
  add(text, "disk", disk_lines(machine.disk));
  text += "\nTroupe will use: " + use_lines(machine).front() + "\n";
  for (const Finding& finding : findings)
    text += fmt::format("{}: {}\n", finding.stops_runs ? "problem" : "advice", finding.sentence);
  const auto problems = std::count_if(findings.begin(), findings.end(), [](const Finding& f) { return f.stops_runs; });
  text += problems == 0   ? "a run can start here\n"
          : problems == 1 ? "1 problem keeps runs from starting here\n"
                          : fmt::format("{} problems keep runs from starting here\n", problems);
  return text;
}

}  // namespace troupe
