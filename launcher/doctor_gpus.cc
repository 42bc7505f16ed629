// GPUs as CUDA sees them, and as the machine has them whether or not CUDA does: so that "none" can be explained.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "launcher/doctor_facts.h"
#include "launcher/machine.h"

namespace troupe {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kOpeningMax{
    1500};  // GPUs opened later than this keep their free memory to themselves

std::string first_word_of(const fs::path& path) {
  std::ifstream file(path);
  std::string word;
  file >> word;
  return word;
}

// Class 0x0300xx or 0x0302xx: a display controller, with or without a display.
int nvidia_controllers() {
  int count = 0;
  std::error_code failed;
  for (fs::directory_iterator at("/sys/bus/pci/devices", failed), end; !failed && at != end; at.increment(failed))
    if (first_word_of(at->path() / "vendor") == "0x10de" && first_word_of(at->path() / "class").starts_with("0x03"))
      ++count;
  return count;
}

// "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue ...": the first word that is a number.
std::string module_version() {
  std::ifstream file("/proc/driver/nvidia/version");
  std::string line;
  std::getline(file, line);
  std::istringstream words(line);
  for (std::string word; words >> word;)
    if (word.find_first_not_of("0123456789.") == std::string::npos) return word;
  return "";
}

void add_files(GpuFacts& facts) {
  std::error_code failed;
  for (fs::directory_iterator at("/dev", failed), end; !failed && at != end; at.increment(failed)) {
    const std::string name = at->path().filename().string();
    const bool is_ours = name == "nvidiactl" || name == "nvidia-uvm" ||
                         (name.starts_with("nvidia") && name.find_first_not_of("0123456789", 6) == std::string::npos);
    if (!is_ours) continue;
    facts.has_files = true;
    const int file = ::open(at->path().c_str(), O_RDWR | O_CLOEXEC);
    if (file >= 0)
      ::close(file);
    else if (errno == EACCES || errno == EPERM)
      facts.files_refused.push_back(at->path().string());
  }
}

}  // namespace

GpuFacts look_at_gpus() {
  GpuFacts facts;
  facts.hardware = nvidia_controllers();
  facts.module = module_version();
  facts.gpus = look_for_gpus();
  if (facts.gpus.all.empty()) add_files(facts);
  Config defaults;
  resolve_machine(defaults);
  facts.chosen = defaults.device;
  const auto deadline = Clock::now() + kOpeningMax;
  int index = 0;
  for (Gpu& gpu : facts.gpus.all) {
    if (gpu.problem.empty() && Clock::now() < deadline) ask_free_memory(index, gpu);
    ++index;
  }
  return facts;
}

}  // namespace troupe
