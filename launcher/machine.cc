#include "launcher/machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "actors/build_info.h"
#include "kernels/base/error.h"
#include "kernels/cpu/device.h"
#include "kernels/cuda/open.h"

namespace troupe {

namespace {

int cores() { return static_cast<int>(std::max(1U, std::thread::hardware_concurrency())); }

bool has_usable_gpu() {
  const Gpus gpus = look_for_gpus();
  return std::any_of(gpus.all.begin(), gpus.all.end(), [](const Gpu& gpu) { return gpu.problem.empty(); });
}

}  // namespace

void resolve_machine(Config& config) {
  DeviceConfig& device = config.device;
  if (device.kind == "auto") device.kind = has_usable_gpu() ? "cuda" : "cpu";
  if (device.kind == "cuda" && config.train.dtype == "fp8")
    throw Error(
        "device.kind is \"cuda\", train.dtype is \"fp8\": products in FP8 have no kernels for GPUs yet; train in "
        "bfloat16, or on device.kind = \"cpu\"");
  if (device.kind == "cuda") device.threads = 1;
  if (device.threads == 0) device.threads = std::max(1, cores() / config.layout.nodes);
}

// Nodes of one machine share its GPUs in turn; a cluster's launcher shows each node those that are its own.
std::unique_ptr<MeasuredDevice> open_device(const Config& config, std::uint32_t node, bool profiled) {
  const auto recorded = static_cast<std::size_t>(config.device.record_segments);
  if (config.device.kind == "cuda") {
    const std::size_t gpus = look_for_gpus().all.size();
    return open_cuda({.index = static_cast<int>(node % std::max<std::size_t>(1, gpus)),
                      .profiled = profiled,
                      .recorded_max = recorded});
  }
  const bool cores_enough = config.device.threads * config.layout.nodes <= cores();
  return std::make_unique<CpuDevice>(config.device.threads, profiled, recorded, cores_enough);
}

std::string kind_of_machine(const Config& config) {
  if (config.device.kind != "cuda") return machine_kind();
  const Gpus gpus = look_for_gpus();
  return gpus.all.empty() ? gpus.problem : fmt::format("{}, CUDA {}", gpus.all.front().name, gpus.runtime);
}

}  // namespace troupe
