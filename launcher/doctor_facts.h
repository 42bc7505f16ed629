// What `troupe doctor` gathers of a machine. Values: what follows from them (doctor_findings.h, doctor_report.h) is
// tested on machines that aren't there. Sizes are in bytes. `late`: it was asked and has not answered in time; then the
// rest is as it stands here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "actors/config.h"
#include "kernels/cuda/open.h"
#include "messages/ucx_report.h"

namespace troupe {

struct ProcessorFacts {
  std::string model;
  std::vector<std::string> flags;  // as /proc/cpuinfo names them; empty: unknown
  std::string built_for;           // the instruction set of this program's kernels: "x86-64-v3"
  int cores = 0;                   // of the machine
  int cores_allowed = 0;           // for this process, by affinity
  double cores_quota = 0;          // of the control group; 0: no limit
};

struct MemoryFacts {
  std::uint64_t total = 0, available = 0;
  std::uint64_t group_limit = 0, group_used = 0;  // of the control group; limit 0: none
};

struct GpuFacts {
  bool late = false;
  Gpus gpus;
  int hardware = 0;                        // NVIDIA's display controllers on the PCI bus
  std::string module;                      // version of NVIDIA's kernel module: "580.95.05"; empty: it isn't loaded
  bool has_files = false;                  // /dev/nvidia*; looked for only where CUDA finds no GPU
  std::vector<std::string> files_refused;  // of those, what this user may not open
  DeviceConfig chosen;                     // what device.kind = "auto" and device.threads = 0 become with one node
};

struct LibraryFacts {
  std::string name, version, problem;  // "libnccl", "2.28.9"; problem: why it can't be opened
};

struct LibrariesFacts {
  bool late = false;
  std::vector<LibraryFacts> all;
};

struct TransportFacts {
  bool late = false;
  UcxReport ucx;
  bool has_shared = false, shared_writable = false;  // /dev/shm
  std::uint64_t shared_size = 0, shared_free = 0;
};

struct LimitFacts {
  std::uint64_t files = 0, files_hard = 0, locked = 0;  // UINT64_MAX: no limit
};

struct JudgeFacts {
  bool late = false;
  std::string problem;             // why there can be no judge
  std::vector<std::string> notes;  // what keeps a judge's command from being fully confined
  std::vector<std::string> locks;  // settings of the kernel that forbid it: "user.max_user_namespaces is 0"
};

struct DiskFacts {
  bool late = false;
  std::string folder, filesystem;  // "ext4"
  std::string problem;             // why nothing can be written
  std::uint64_t free = 0;
  double bytes_per_second = 0, sync_ms = 0;  // written through to the disk, a few MiB at a time
};

struct MachineFacts {
  std::string version;  // of this program
  ProcessorFacts processor;
  MemoryFacts memory;
  GpuFacts gpu;
  LibrariesFacts libraries;
  TransportFacts transport;
  LimitFacts limits;
  JudgeFacts judge;
  DiskFacts disk;
};

// ---- Gathering: each touches this machine, throws nothing, and may take as long as the machine does ------------------
ProcessorFacts look_at_processor();
MemoryFacts look_at_memory();
GpuFacts look_at_gpus();
LibrariesFacts look_at_libraries();
TransportFacts look_at_transport();
LimitFacts look_at_limits();
JudgeFacts look_at_judge();
DiskFacts look_at_disk();  // the working folder's

// All of it, within a few seconds.
MachineFacts look_at_machine();
// Something was asked and hangs: the program must end by _Exit, or it waits for that.
bool any_late(const MachineFacts& machine);

}  // namespace troupe
