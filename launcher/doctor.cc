// `troupe doctor`: what may hang (GPUs, libraries, UCX, a judge, the disk) is asked at once, each in a thread of its
// own, and what has not answered by the deadline is told as such; limits, processor and memory, which the kernel tells
// by itself, are read meanwhile. The law: the command ends in time, whatever hangs.
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <future>
#include <thread>
#include <utility>

#include "actors/build_info.h"
#include "launcher/doctor_report.h"
#include "launcher/tools.h"

namespace troupe {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kAnswersMax{3000};

// The thread is left to itself: a std::async's future would wait for one that hangs.
template <typename Facts>
std::future<Facts> ask(Facts (*look)()) {
  std::packaged_task<Facts()> task(look);
  std::future<Facts> answer = task.get_future();
  std::thread(std::move(task)).detach();
  return answer;
}

template <typename Facts>
Facts take(std::future<Facts>& answer, Clock::time_point deadline) {
  if (answer.wait_until(deadline) == std::future_status::ready) return answer.get();
  Facts none;
  none.late = true;
  return none;
}

}  // namespace

bool any_late(const MachineFacts& m) {
  return m.gpu.late || m.libraries.late || m.transport.late || m.judge.late || m.disk.late;
}

MachineFacts look_at_machine() {
  const auto deadline = Clock::now() + kAnswersMax;
  MachineFacts machine;
  machine.limits = look_at_limits();
  auto judge = ask(&look_at_judge);
  auto gpu = ask(&look_at_gpus);
  auto libraries = ask(&look_at_libraries);
  auto transport = ask(&look_at_transport);
  auto disk = ask(&look_at_disk);
  machine.version = build_version();
  machine.processor = look_at_processor();
  machine.memory = look_at_memory();
  machine.judge = take(judge, deadline);
  machine.gpu = take(gpu, deadline);
  machine.libraries = take(libraries, deadline);
  machine.transport = take(transport, deadline);
  machine.disk = take(disk, deadline);
  return machine;
}

int doctor(const DoctorOptions& options) {
  const MachineFacts machine = look_at_machine();
  const Findings findings = findings_of(machine);
  const std::string report = options.json ? doctor_json(machine, findings) : doctor_text(machine, findings);
  std::fwrite(report.data(), 1, report.size(), stdout);
  std::fflush(stdout);
  const int code = can_run(findings) ? 0 : 1;
  if (any_late(machine)) std::_Exit(code);  // a thread that hangs uses what an orderly end would take apart
  return code;
}

}  // namespace troupe
