// `troupe doctor`: what follows from the facts of machines that aren't there, and the command on the one that is.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "actors/build_info.h"
#include "launcher/doctor_group.h"
#include "launcher/doctor_report.h"
#include "tests/support/run.h"

#include "tests/support/catch.h"

namespace troupe {
namespace {

using nlohmann::json;

constexpr std::uint64_t kKiB = 1024, kMiB = 1024 * kKiB, kGiB = 1024 * kMiB;

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::vector<std::string> words(const std::string& text) {
  std::istringstream in(text);
  return {std::istream_iterator<std::string>(in), {}};
}

const std::string kLevel3 =
    "sse2 cx16 lahf_lm popcnt pni ssse3 sse4_1 sse4_2 avx avx2 bmi1 bmi2 f16c fma abm movbe xsave";
const std::string kLevel4 = kLevel3 + " avx512f avx512bw avx512cd avx512dq avx512vl";

Gpu hopper() {
  return {.name = "H100",
          .major = 9,
          .minor = 0,
          .multiprocessors = 132,
          .memory = 80 * kGiB,
          .free = 79 * kGiB,
          .problem = ""};
}

// A machine with two GPUs and nothing to complain of.
MachineFacts sound() {
  MachineFacts m;
  m.version = "troupe 0.1";
  m.processor = {.model = "EPYC",
                 .flags = words(kLevel4 + " avx512_bf16"),
                 .built_for = "x86-64-v4",
                 .cores = 16,
                 .cores_allowed = 16,
                 .cores_quota = 0};
  m.memory = {.total = 128 * kGiB, .available = 120 * kGiB, .group_limit = 0, .group_used = 0};
  m.gpu.gpus = {.all = {hopper(), hopper()}, .problem = "", .driver = 13000, .runtime = 13000};
  m.gpu.hardware = 2;
  m.gpu.module = "580.95.05";
  m.gpu.has_files = true;
  m.gpu.chosen.kind = "cuda";
  m.gpu.chosen.threads = 1;
  m.libraries.all = {{.name = "libnccl", .version = "2.28.9", .problem = ""},
                     {.name = "libcudnn", .version = "", .problem = "not found"}};
  m.transport.ucx.version = "1.13.1";
  m.transport.ucx.ways = {{"self", "memory0"}, {"sysv", "memory"}, {"cma", "memory"}, {"tcp", "eth0"}};
  m.transport.ucx.memory_types = {"host"};
  m.transport.ucx.auto_small = "sysv";
  m.transport.has_shared = m.transport.shared_writable = true;
  m.transport.shared_size = m.transport.shared_free = 64 * kGiB;
  m.limits = {.files = 1024, .files_hard = 4096, .locked = 8 * kMiB};
  m.disk = {.late = false,
            .folder = "/data",
            .filesystem = "ext4",
            .problem = "",
            .free = 500 * kGiB,
            .bytes_per_second = 1e9,
            .sync_ms = 4};
  return m;
}

MachineFacts without_gpus() {
  MachineFacts m = sound();
  m.gpu = {};
  m.gpu.gpus = {.all = {}, .problem = "no CUDA-capable device is detected", .driver = 0, .runtime = 13000};
  m.gpu.chosen.kind = "cpu";
  m.gpu.chosen.threads = 16;
  return m;
}

// The only finding; it says all of `parts`.
void expect_only(const MachineFacts& machine, bool stops_runs, const std::vector<std::string>& parts) {
  const Findings findings = findings_of(machine);
  INFO(doctor_text(machine, findings));
  REQUIRE(findings.size() == 1);
  CHECK(findings[0].stops_runs == stops_runs);
  CHECK(can_run(findings) == !stops_runs);
  CHECK(!findings[0].sentence.ends_with("."));
  for (const std::string& part : parts) {
    INFO(part);
    CHECK(has(findings[0].sentence, part));
  }
}
void expect_problem(const MachineFacts& machine, const std::vector<std::string>& parts) {
  expect_only(machine, true, parts);
}
void expect_advice(const MachineFacts& machine, const std::vector<std::string>& parts) {
  expect_only(machine, false, parts);
}

}  // namespace

// ---- Findings -------------------------------------------------------------------------------------------------------

TEST_CASE("a sound machine has no finding, with GPUs or without", "[doctor]") {
  CHECK(findings_of(sound()).empty());
  CHECK(findings_of(without_gpus()).empty());
  MachineFacts plain = without_gpus();
  plain.gpu.gpus.runtime = 0;
  CHECK(findings_of(plain).empty());
}

TEST_CASE("an instruction that this build needs and the processor lacks stops runs", "[doctor]") {
  MachineFacts m = sound();
  m.processor.flags = words(kLevel3 + " avx512f");
  expect_problem(
      m, {"EPYC lacks avx512bw, avx512cd, avx512dq, avx512vl", "illegal instruction", "TROUPE_MARCH=x86-64-v3"});
  m.processor.built_for = "x86-64-v3";
  CHECK(findings_of(m).empty());
  m.processor.flags = words("sse2 cx16 lahf_lm popcnt pni ssse3 sse4_1 sse4_2");
  expect_problem(m, {"lacks avx, avx2", "use a machine with AVX2"});
}

TEST_CASE("a processor that could do more than the build is told, and one that doesn't tell is unknown", "[doctor]") {
  MachineFacts m = sound();
  m.processor.built_for = "x86-64-v3";
  expect_advice(m, {"AVX-512", "TROUPE_MARCH=x86-64-v4"});
  m.processor.flags.clear();
  expect_advice(m, {"/proc/cpuinfo"});
}

TEST_CASE("cores that may not be used count for nothing, and too many threads are told", "[doctor]") {
  MachineFacts m = without_gpus();
  m.processor.cores_allowed = 4;
  expect_advice(m, {"16 threads", "4 cores", "device.threads = 4"});
  m.processor.cores_quota = 0.5;
  expect_advice(m, {"16 threads", "one core", "device.threads = 1"});
  m.gpu.chosen = sound().gpu.chosen;
  CHECK(findings_of(m).empty());
}

TEST_CASE("memory is what the control group leaves", "[doctor]") {
  MachineFacts m = sound();
  m.memory.group_limit = kGiB;
  m.memory.group_used = kGiB / 2;
  expect_advice(m, {"512 MiB", "control group", "troupe plan"});
  m.memory.group_used = 1020 * kMiB;
  expect_problem(m, {"4 MiB"});
  m.memory = {.total = 128 * kGiB, .available = 10 * kMiB, .group_limit = 0, .group_used = 0};
  expect_problem(m, {"10 MiB are left: "});
}

TEST_CASE("an old driver leaves runs to the processor and is told with the driver to install", "[doctor]") {
  MachineFacts m = without_gpus();
  m.gpu.hardware = 1;
  m.gpu.module = "535.183.01";
  m.gpu.gpus.driver = 12020;
  m.gpu.gpus.problem = "CUDA driver version is insufficient for CUDA runtime version";
  expect_advice(m, {"CUDA 12.2", "needs 13.0", "driver 580 or newer"});
  CHECK(has(doctor_text(m, {}), "driver 535.183.01 for CUDA 12.2 (too old)"));
  m.gpu.gpus.runtime = 12060;
  m.gpu.gpus.problem = "forbidden";
  expect_advice(m, {"forbidden", "CUDA_VISIBLE_DEVICES"});
}

TEST_CASE("why there is no GPU is told: no driver, a container's, a file's mode, or no CUDA in the program",
          "[doctor]") {
  MachineFacts m = without_gpus();
  m.gpu.hardware = 1;
  expect_advice(m, {"no NVIDIA driver is loaded", "driver 580"});
  m.gpu.module = "580.95.05";
  expect_advice(m, {"libcuda.so.1 is not found", "docker run --gpus all"});
  m.gpu.gpus.driver = 13000;
  m.gpu.files_refused = {"/dev/nvidiactl", "/dev/nvidia0"};
  expect_advice(m, {"may not open /dev/nvidiactl, /dev/nvidia0"});
  m.gpu.gpus.runtime = 0;
  expect_advice(m, {"built without CUDA", "nvcc"});
}

TEST_CASE("a GPU without kernels is left alone, but among others it stops the node that would take it", "[doctor]") {
  MachineFacts m = sound();
  const std::string problem = "is of compute capability 7.0; this program's kernels are for 8.x and 9.0";
  Gpu old = {.name = "V100",
             .major = 7,
             .minor = 0,
             .multiprocessors = 80,
             .memory = 16 * kGiB,
             .free = 0,
             .problem = problem};
  m.gpu.gpus.all[0] = old;
  expect_problem(m, {"GPU 0 (V100)", "capability 7.0", "CUDA_VISIBLE_DEVICES=1)"});
  m.gpu.gpus.all = {old};
  m.gpu.chosen = without_gpus().gpu.chosen;
  expect_advice(m, {"GPU 0 (V100)", "capability 7.0", "runs take the processor"});
}

TEST_CASE("the only GPU that can't be opened stops runs, which would try", "[doctor]") {
  MachineFacts m = sound();
  m.gpu.gpus.all = {hopper()};
  m.gpu.gpus.all[0].problem = "can't be opened: out of memory";
  expect_problem(m, {"GPU 0 (H100) can't be opened: out of memory", "nvidia-smi", "device.kind = \"cpu\""});
}

TEST_CASE("a GPU that others have filled is told", "[doctor]") {
  MachineFacts m = sound();
  m.gpu.gpus.all[1].free = kGiB;
  expect_advice(m, {"GPU 1 (H100)", "only 1 GiB of 80 GiB", "nvidia-smi"});
}

TEST_CASE("a /dev/shm that is missing, closed or too small stops runs of several nodes", "[doctor]") {
  MachineFacts m = sound();
  m.transport.shared_size = m.transport.shared_free = 64 * kKiB;
  expect_problem(m, {"/dev/shm has 64 KiB free", "each node takes 5 MiB", "--shm-size", "layout.transport = \"tcp\""});
  m.transport.ucx.auto_problem = "UCX can't make a worker";
  m.transport.shared_writable = false;
  expect_problem(m, {"can't be written to", "--shm-size"});
  m.transport.ucx.tcp_problem = "no interface";
  m.transport.has_shared = false;
  expect_problem(m, {"is not there"});
  CHECK(!has(findings_of(m)[0].sentence, "tcp"));
  m = sound();
  m.transport.ucx.auto_problem = "UCX can't start";
  expect_problem(m, {"UCX refuses", "UCX can't start"});
}

TEST_CASE("/dev/shm must hold a node for each GPU, and two at least", "[doctor]") {
  MachineFacts m = sound();
  m.transport.shared_free = 10 * kMiB;
  CHECK(findings_of(m).empty());
  m.transport.shared_free -= 1;
  CHECK(!can_run(findings_of(m)));
  m.transport.shared_free = 39 * kMiB;
  CHECK(can_run(findings_of(m)));
  m.gpu.gpus.all.resize(8, hopper());
  CHECK(!can_run(findings_of(m)));
  MachineFacts plain = without_gpus();
  plain.transport.shared_free = 9 * kMiB;
  CHECK(!can_run(findings_of(plain)));
}

TEST_CASE("few open files are told, and too few for two nodes stop runs", "[doctor]") {
  MachineFacts m = sound();
  m.limits = {.files = 64, .files_hard = 4096, .locked = 0};
  expect_advice(m, {"64 open files", "ulimit -n 4096"});
  m.limits = {.files = 20, .files_hard = 64, .locked = 0};
  expect_problem(m, {"20 open files a process are too few", "owner"});
}

TEST_CASE("judges that can't confine are told with the kernel's reason, and none at all stops runs", "[doctor]") {
  MachineFacts m = sound();
  m.judge.notes = {"commands can use the network: the kernel refuses namespaces"};
  m.judge.locks = {"user.max_user_namespaces is 0"};
  expect_advice(m, {"can use the network", "user.max_user_namespaces is 0", "sysctl"});
  m.judge.problem = "can't make a folder";
  expect_problem(m, {"rollouts", "can't make a folder"});
}

TEST_CASE("a folder that is closed or full stops runs, a slow one is told", "[doctor]") {
  MachineFacts m = sound();
  m.disk.bytes_per_second = 5e6;
  expect_advice(m, {"/data", "5.0 MB a second"});
  m = sound();
  m.disk.free = 100 * kMiB;
  expect_advice(m, {"/data", "100 MiB"});
  m.disk.free = kMiB;
  expect_problem(m, {"/data", "1 MiB"});
  m = sound();
  m.disk.problem = "Read-only file system";
  expect_problem(m, {"/data", "Read-only", "--out"});
}

TEST_CASE("what does not answer is told, and stops runs if they would ask it too", "[doctor]") {
  MachineFacts m = sound();
  m.gpu = {};
  m.gpu.late = true;
  expect_problem(m, {"CUDA's driver does not answer"});
  CHECK(has(doctor_text(m, {}), "unknown, until CUDA answers"));
  m = sound();
  m.transport = {};
  m.transport.late = true;
  expect_problem(m, {"UCX does not answer"});
  CHECK(has(doctor_text(m, {}), "through nothing yet"));
  m = sound();
  m.disk.late = true;
  expect_problem(m, {"file system does not answer"});
  m = sound();
  m.judge.late = true;
  expect_advice(m, {"judges"});
  m = sound();
  m.libraries.late = true;
  CHECK(findings_of(m).empty());
}

TEST_CASE("the findings that stop runs come first", "[doctor]") {
  MachineFacts m = sound();
  m.memory.available = 900 * kMiB;
  m.disk.problem = "Read-only file system";
  const Findings findings = findings_of(m);
  REQUIRE(findings.size() == 2);
  CHECK(findings[0].stops_runs);
  CHECK(has(findings[1].sentence, "memory"));
}

// ---- Derived facts ----------------------------------------------------------------------------------------------

TEST_CASE("a control group limits through its own folder and those above it, in both versions", "[doctor]") {
  const std::map<std::string, std::string> files = {
      {"/sys/fs/cgroup/cpu.max", "800000 100000\n"},
      {"/sys/fs/cgroup/a/cpu.max", "150000 100000\n"},
      {"/sys/fs/cgroup/a/d/cpu.max", "100000 100000\n"},
      {"/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"},
      {"/sys/fs/cgroup/a/b/memory.max", "max\n"},
      {"/sys/fs/cgroup/a/memory.max", "1048576\n"},
      {"/sys/fs/cgroup/a/memory.current", "4096\n"},
      {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"},
      {"/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"},
      {"/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "50000\n"},
      {"/sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n"},
      {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"},
      {"/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "2048"},
      {"/sys/fs/cgroup/memory/x/memory.usage_in_bytes", "1024"}};
  const auto read = [&](const std::string& path) { return files.contains(path) ? files.at(path) : ""; };
  const GroupLimits second = limits_of_group("0::/a/b\n", read);
  CHECK(second.cores == 1.5);
  CHECK(second.memory == 1048576);
  CHECK(second.used == 4096);
  const GroupLimits first = limits_of_group("5:cpu:/x/y\n4:memory:/x\n0::/\n", read);
  CHECK(first.cores == 0.5);
  CHECK(first.memory == 2048);
  CHECK(first.used == 1024);
  CHECK(limits_of_group("4:memory:/\n", read).memory == 0);
  CHECK(limits_of_group("0::/c/gone\n", read).cores == 8);
  CHECK(limits_of_group("0::/a/d\n", read).cores == 1);
  CHECK(limits_of_group("nonsense", read).cores == 0);
}

TEST_CASE("sizes are said in the unit that fits", "[doctor]") {
  CHECK(size_text(0) == "0 bytes");
  CHECK(size_text(64 * kKiB) == "64 KiB");
  CHECK(size_text(4208 * kKiB) == "4.1 MiB");
  CHECK(size_text(1023 * kMiB) == "1.0 GiB");
  CHECK(size_text(200 * kGiB + kMiB) == "200 GiB");
  CHECK(speed_class(2e9) == "fast");
  CHECK(speed_class(200e6) == "fair");
  CHECK(speed_class(20e6) == "slow");
}

// ---- Reports --------------------------------------------------------------------------------------------------------

TEST_CASE("the text says what is there and fits a screen", "[doctor]") {
  const std::string text = doctor_text(sound(), {});
  INFO(text);
  for (const std::string part :
       {"EPYC; 16 cores", "x86-64-v4 (this build): all of it is there", "1: H100, 79 GiB free of 80 GiB",
        "libnccl 2.28.9, libcudnn not found: opened where a run asks for them", "UCX 1.13.1",
        "shared memory: sysv, cma; TCP: eth0; InfiniBand: none; CUDA memory: no", "open files: 1024", "confined fully",
        "500 GiB free", "device cuda, one GPU a node"})
    CHECK(has(text, part));
  CHECK(std::count(text.begin(), text.end(), '\n') <= 24);
  CHECK(text.ends_with("a run can start here\n"));
  MachineFacts other = sound();
  const auto rows_go = [&] {
    const std::string all = doctor_text(other, {}), mark = "rows go from GPU to GPU ";
    return has(all, mark) ? all.substr(all.find(mark) + mark.size(), 8) : "nowhere";
  };
  CHECK(rows_go() == "by NCCL ");
  other.libraries.all[0].problem = "not found";
  CHECK(rows_go() == "through ");
  other.transport.ucx.memory_types.emplace_back("cuda");
  CHECK(rows_go().starts_with("by UCX\n"));
  other.gpu.gpus.all.clear();
  CHECK(rows_go() == "nowhere");
  const std::string bad = doctor_text(sound(), {{true, "one"}, {true, "two"}, {false, "three"}});
  CHECK(bad.ends_with("problem: one\nproblem: two\nadvice: three\n2 problems keep runs from starting here\n"));
}

TEST_CASE("the JSON says the same, whatever a path is made of", "[doctor]") {
  MachineFacts m = sound();
  m.disk.folder = "/data/\xff";
  const json told = json::parse(doctor_json(m, {{true, "one"}, {false, "two"}}));
  CHECK(told["can_run"] == false);
  CHECK(told["problems"] == json{"one"});
  CHECK(told["advice"] == json{"two"});
  CHECK(told["gpus"]["all"].size() == 2);
  CHECK(told["gpus"]["all"][0]["capability"] == json{9, 0});
  CHECK(told["transport"]["ways"].size() == 4);
  CHECK(told["will_use"]["device"] == "cuda");
  CHECK(told["will_use"]["transport"] == "shm");
  m.gpu.late = m.transport.late = true;
  CHECK(json::parse(doctor_json(m, {}))["will_use"] ==
        json{{"device", nullptr}, {"threads", nullptr}, {"transport", nullptr}});
}

// ---- This machine ---------------------------------------------------------------------------------------------------

TEST_CASE("the doctor sees this machine within seconds, and leaves nothing behind", "[doctor][command]") {
  const test::Folder folder;
  const auto begin = std::chrono::steady_clock::now();
  const test::Ended text = test::run({"/bin/sh", "-c", "cd \"$1\" && exec \"$0\" doctor", TROUPE_BINARY, folder / ""});
  const auto taken = std::chrono::steady_clock::now() - begin;
  INFO(text.out << text.err);
  CHECK(taken < std::chrono::seconds(10));  // 3 by its own clock; the rest is for a busy machine
  CHECK(text.err == "");
  CHECK(text.code == (has(text.out, "a run can start here") ? 0 : 1));
  for (const std::string part : {"processor ", "memory ", "GPUs ", "libraries ", "transport ", "limits ", "judges ",
                                 "disk ", "Troupe will use: device ", "layout.transport = \"auto\": shared memory"})
    CHECK(has(text.out, part));
  CHECK(has(text.out, built_for() + " (this build)"));
  CHECK(std::filesystem::is_empty(folder / ""));
}

TEST_CASE("the doctor's JSON is one object with its exit code", "[doctor][command]") {
  const test::Ended ended = test::troupe({"doctor", "--json"});
  INFO(ended.out << ended.err);
  const json told = json::parse(ended.out);
  CHECK(ended.code == (told["can_run"] == true ? 0 : 1));
  CHECK(told["processor"]["cores_usable"] >= 1);
  CHECK(told["processor"]["missing"].empty());  // these tests run here
  CHECK(told["memory"]["total"] > 0);
  CHECK(told["transport"]["auto"]["problem"] == "");
  CHECK(!told["transport"]["ways"].empty());
  CHECK(told["transport"]["memory_types"][0] == "host");
  CHECK(told["limits"]["open_files"] > 0);
  CHECK(told["disk"]["bytes_per_second"] > 0);
}

TEST_CASE("the doctor tells the limits that it is started under", "[doctor][command]") {
  const auto under = [](const std::string& limit) {
    return test::run({"/bin/sh", "-c", limit + " && exec \"$0\" doctor", TROUPE_BINARY});
  };
  const test::Ended files = under("ulimit -n 100");
  INFO(files.out << files.err);
  CHECK(has(files.out, "open files: 100;"));
  CHECK(has(files.out, "advice: limits: 100 open files a process are few"));
  const test::Ended closed = under("cd /proc");
  INFO(closed.out << closed.err);
  CHECK(closed.code == 1);
  CHECK(has(closed.out, "problem: disk: nothing can be written to /proc"));
}

}  // namespace troupe
