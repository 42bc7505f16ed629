// The processor and its memory, as the kernel's files tell them.
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "actors/build_info.h"
#include "launcher/doctor_facts.h"
#include "launcher/doctor_group.h"
#include "launcher/whole_file.h"

namespace troupe {

namespace {

// Of the first line "key   : value".
std::string value_of(const std::string& text, const std::string& key) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t colon = line.find(':');
    if (!line.starts_with(key) || colon == std::string::npos) continue;
    if (line.find_last_not_of(" \t", colon - 1) + 1 == key.size())
      return line.substr(std::min(line.size(), line.find_first_not_of(' ', colon + 1)));
  }
  return "";
}

std::uint64_t kib(const std::string& value) {
  std::uint64_t count = 0;
  std::istringstream(value) >> count;
  return count << 10;
}

GroupLimits own_group() { return limits_of_group(read_whole_file("/proc/self/cgroup"), read_whole_file); }

// The mask is as long as the kernel's, whatever the number of cores.
int cores_by_affinity() {
  for (int cores = 1024; cores <= 1 << 20; cores *= 2) {
    cpu_set_t* const set = CPU_ALLOC(cores);
    const std::size_t size = CPU_ALLOC_SIZE(cores);
    const int count = ::sched_getaffinity(0, size, set) == 0 ? CPU_COUNT_S(size, set) : 0;
    CPU_FREE(set);
    if (count > 0) return count;
  }
  return 0;
}

}  // namespace

ProcessorFacts look_at_processor() {
  const std::string info = read_whole_file("/proc/cpuinfo");
  ProcessorFacts facts;
  facts.model = value_of(info, "model name");
  if (facts.model.empty()) facts.model = machine_kind();
  std::istringstream flags(value_of(info, "flags"));
  for (std::string flag; flags >> flag;) facts.flags.push_back(flag);
  facts.built_for = built_for();
  facts.cores = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  facts.cores_allowed = cores_by_affinity();
  facts.cores_quota = own_group().cores;
  return facts;
}

MemoryFacts look_at_memory() {
  const std::string info = read_whole_file("/proc/meminfo");
  const GroupLimits group = own_group();
  return {.total = kib(value_of(info, "MemTotal")),
          .available = kib(value_of(info, "MemAvailable")),
          .group_limit = group.memory,
          .group_used = group.used};
}

}  // namespace troupe
