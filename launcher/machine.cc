#include "launcher/machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "actors/build_info.h"
#include "kernels/base/error.h"
#include "kernels/cpu/device.h"
#include "kernels/cuda/open.h"
#include "launcher/doctor_findings.h"
#include "launcher/plan.h"

namespace troupe {

namespace {

// As CUDA counts them.
std::vector<int> usable_indices(const Gpus& gpus) {
  std::vector<int> usable;
  for (std::size_t i = 0; i < gpus.all.size(); ++i)
    if (gpus.all[i].problem.empty()) usable.push_back(static_cast<int>(i));
  return usable;
}

}  // namespace

int usable_cores() { return cores_usable(look_at_processor()); }

void resolve_machine(Config& config) {
  DeviceConfig& device = config.device;
  if (device.kind == "auto") device.kind = !usable_indices(look_for_gpus()).empty() ? "cuda" : "cpu";
  if (device.kind == "cuda") device.threads = 1;
  if (device.threads == 0) device.threads = std::max(1, usable_cores() / config.layout.nodes);
}

void expect_device(const Config& config) {
  if (config.device.kind != "cuda") return;
  const Gpus gpus = look_for_gpus();
  if (!usable_indices(gpus).empty()) return;
  const std::string problem =
      gpus.all.empty() ? gpus.problem : fmt::format("{} {}", gpus.all[0].name, gpus.all[0].problem);
  throw Error(
      "device.kind is \"cuda\", but there is no GPU that can be used ({}); `troupe doctor` tells more, or set "
      "device.kind "
      "= \"cpu\"",
      problem);
}

bool cores_enough(const Config& config, int together) {
  return config.device.threads * (together > 0 ? together : config.layout.nodes) <= usable_cores();
}

// Nodes of one machine share its GPUs in turn; a cluster's launcher shows each node those that are its own.
int gpu_of_node(std::uint32_t node) {
  const std::vector<int> gpus = usable_indices(look_for_gpus());
  return gpus.at(node % gpus.size());
}

std::unique_ptr<MeasuredDevice> open_device(const Config& config, std::uint32_t node, bool profiled, Watch* watch,
                                            int together) {
  expect_device(config);
  if (config.device.kind == "cuda") {
    return open_cuda({.index = gpu_of_node(node),
                      .profiled = profiled,
                      .warpgroups = config.device.products == "wgmma",
                      .library = config.device.products == "cublaslt",
                      .staging = staging_bytes(config),
                      .staged_min = static_cast<std::size_t>(config.device.staged_kib_min) << 10,
                      .watch = watch});
  }
  return std::make_unique<CpuDevice>(config.device.threads, profiled, watch, cores_enough(config, together));
}

std::string kind_of_machine(const Config& config) {
  if (config.device.kind != "cuda") return machine_kind();
  const Gpus gpus = look_for_gpus();
  return gpus.all.empty() ? gpus.problem : fmt::format("{}, CUDA {}", gpus.all.front().name, gpus.runtime);
}

}  // namespace troupe
