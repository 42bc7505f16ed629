// From a machine's facts to what is wrong with it: pure functions. The law: a finding stops runs only if a run with
// default settings, of one node or of several, could not start, or would die.
#pragma once

#include <string>
#include <vector>

#include "launcher/doctor_facts.h"

namespace troupe {

struct Finding {
  bool stops_runs = false;
  std::string sentence;  // what, where, what to do
};
using Findings = std::vector<Finding>;

Findings findings_of(const ProcessorFacts& processor);
Findings findings_of(const MemoryFacts& memory);
Findings findings_of(const GpuFacts& gpu);
Findings findings_of(const TransportFacts& transport, int nodes);  // that are to talk
Findings findings_of(const LimitFacts& limits);
Findings findings_of(const JudgeFacts& judge);
Findings findings_of(const DiskFacts& disk);
// All, those that stop runs first. between_hosts: of a machine whose nodes talk to other machines'.
Findings findings_of(const MachineFacts& machine, bool between_hosts = false);
Findings findings_between_hosts(const TransportFacts& transport);

bool can_run(const Findings& findings);

// ---- Facts that are derived -------------------------------------------------------------------------------------
// What an x86-64 level needs and the processor lacks.
std::vector<std::string> missing_flags(const ProcessorFacts& processor, const std::string& level);
bool has_flag(const ProcessorFacts& processor, const std::string& flag);
int cores_usable(const ProcessorFacts& processor);
std::uint64_t memory_usable(const MemoryFacts& memory);  // now
bool built_with_cuda(const Gpus& gpus);
int usable_gpus(const Gpus& gpus);
std::string driver_problem(const GpuFacts& gpu);               // "" or why this program's CUDA can't use the driver
std::uint64_t nodes_fitting(const TransportFacts& transport);  // into /dev/shm

bool is_infiniband(const std::string& transport);  // as UCX names it: "rc_mlx5"

std::string speed_class(double bytes_per_second);  // of a disk: "fast", "fair", "slow"

// "23.5 GiB", "64 KiB".
std::string size_text(std::uint64_t size);
// "13.0", of CUDA's 13000.
std::string cuda_text(int version);

}  // namespace troupe
