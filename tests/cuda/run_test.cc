// The whole program on a GPU that isn't there (troupe_simt): fixtures come out right, and layouts have the same bits.
#include <fmt/format.h>

#include <csignal>
#include <deque>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/judge.h"
#include "tests/support/run.h"

#include "tests/support/catch.h"

using namespace troupe::test;

namespace {

const std::string kFixtures = TROUPE_SOURCE_DIR "/tests/fixtures/";

Ended on_gpu(Arguments arguments, Arguments sets = {}) {
  sets.push_back("device.kind=cuda");
  return troupe::test::troupe(with_sets(std::move(arguments), sets));
}

// Of all nodes: frames whose rows were sent from one GPU's memory to another's by that way.
std::size_t carried(const std::string& run, int nodes, const std::string& way) {
  std::size_t frames = 0;
  for (int node = 0; node < nodes; ++node) {
    const std::string log = read_file(run + "/logs/node-" + std::to_string(node) + ".log");
    const std::string mark = "event=device_memory_carried way=" + way + " " + (way == "ucx" ? "frames=" : "sent=");
    for (std::size_t at = log.find(mark); at != std::string::npos; at = log.find(mark, at + 1))
      frames += std::stoul(log.substr(at + mark.size()));
  }
  return frames;
}

struct Way {
  std::string wanted;  // layout.device_transport
  bool by_ucx, by_nccl;
};
// The GPU's memory is the processor's here, so UCX carries it.
const std::vector<Way> kDeviceWays{
    {"host", false, false}, {"ucx", true, false}, {"nccl", false, true}, {"auto", true, false}};

// The digests of the weights after two steps. A run computes with one thread: there are two at a time.
std::vector<std::string> digests_of(const std::vector<Arguments>& all) {
  const Folder folder;
  std::deque<Process> runs;
  std::vector<std::string> digests;
  const auto end_one = [&] {
    const Ended ended = runs.front().wait();
    runs.pop_front();
    INFO(ended.out << ended.err);
    REQUIRE(ended.code == 0);
    digests.push_back(troupe::test::troupe({"digest", folder / std::to_string(digests.size())}).out);
  };
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (runs.size() == 2) end_one();
    Arguments sets = all[i];
    sets.insert(sets.end(), {"train.steps=2", "device.kind=cuda", "data.kind=random", "layout.device_transport=host"});
    runs.emplace_back(troupe_command(tiny_run(folder / std::to_string(i), sets)), 300'000);
  }
  while (!runs.empty()) end_one();
  return digests;
}

}  // namespace

TEST_CASE("every fixture comes out right on a GPU", "[gpu_run]") {
  for (const std::string name :
       {"o1_moe_basic", "o2_v3_groups", "o3_mtp_aux_tied", "o4_yarn_nonorm", "o5_qwen2_tied", "o6_llama_untied"}) {
    INFO(name);
    const Folder folder;
    const Ended ended = on_gpu({"check", kFixtures + name, "--out", folder / "out.safetensors"});
    INFO(ended.err);
    REQUIRE(ended.code == 0);
    const Tensors candidate = load_tensors(folder / "out.safetensors");
    const double rate = nlohmann::json::parse(read_file(kFixtures + name + "/train.json")).at("lr");
    const Judgement values = judge(load_tensors(kFixtures + name + "/expected.safetensors"), candidate, rate);
    CHECK(values.text() == "");
    CHECK(values.missing.empty());
    Tensors greedy = load_tensors(kFixtures + name + "/greedy.safetensors");
    greedy.erase("prompt");
    CHECK(judge(greedy, candidate, 0).text() == "");
  }
}

// What each process of a run copied between host and GPU beside its kernels: bytes.
struct Copied {
  std::string digest;
  int processes = 0;
  long long in = 0, out = 0;
};
Copied copied_by(Arguments sets) {
  const Folder folder;
  sets.insert(sets.end(), {"train.steps=2", "device.kind=cuda", "data.kind=random", "layout.device_transport=host"});
  Arguments command{"/usr/bin/env", "TROUPE_TEST_COPIES=" + (folder / "copies")};
  for (const std::string& word : troupe_command(tiny_run(folder / "run", sets))) command.push_back(word);
  const Ended ended = run(command, 0, 300'000);
  INFO(ended.out << ended.err);
  REQUIRE(ended.code == 0);
  Copied copied{.digest = troupe::test::troupe({"digest", folder / "run"}).out};
  std::istringstream lines(read_file(folder / "copies"));
  std::string word;
  for (long long in = 0, out = 0; lines >> word >> in >> word >> out; ++copied.processes) {
    copied.in += in;
    copied.out += out;
  }
  return copied;
}

TEST_CASE("between nodes large operands are copied beside kernels, and no bit changes", "[gpu_run][staging]") {
  const std::string least = "device.staged_kib_min=1";
  const auto alike = [&](const std::string& dtype, const std::vector<Arguments>& layouts) {
    const Copied alone = copied_by({dtype, least, "layout.expert_shards=2"});
    CHECK((alone.processes == 1 && alone.in == 0 && alone.out == 0));
    for (Arguments sets : layouts) {
      sets.insert(sets.end(), {dtype, least});
      const Copied several = copied_by(sets);
      INFO(sets[0] << ", " << several.processes << " processes: in " << several.in << ", out " << several.out);
      CHECK(several.digest == alone.digest);
      CHECK((several.processes >= 2 && several.in > 100'000 && several.out > 100'000));
    }
  };
  alike("train.dtype=float32",
        {{"layout.nodes=3", "layout.stages=2", "layout.expert_shards=2", "train.recompute=true"}});
  alike("train.dtype=bfloat16", {{"layout.nodes=2", "layout.expert_shards=2"},
                                 {"layout.nodes=2", "layout.replicas=2", "layout.chunk_rows_max=48"}});
  const Copied off = copied_by({"device.staged_kib_min=0", "layout.nodes=2", "layout.expert_shards=2"});
  CHECK((off.processes == 2 && off.in == 0 && off.out == 0));
}

TEST_CASE("a process killed while its operands are copied is replaced, and no bit changes", "[gpu_run][staging]") {
  const Folder folder;
  const Arguments sets{"train.steps=12",
                       "device.kind=cuda",
                       "data.kind=random",
                       "device.staged_kib_min=1",
                       "layout.nodes=2",
                       "layout.expert_shards=2",
                       "layout.device_transport=host"};
  const Ended undisturbed = troupe::test::troupe(tiny_run(folder / "undisturbed", sets));
  INFO(undisturbed.err);
  REQUIRE(undisturbed.code == 0);
  Process run(troupe_command(tiny_run(folder / "run", sets)), 120'000);
  for (const std::size_t steps : {2, 5}) {
    REQUIRE(run.follow([&] {
      return read_file(folder / "run/metrics.jsonl").find(fmt::format("\"step\":{},", steps)) != std::string::npos;
    }));
    std::vector<pid_t> nodes = run.members();
    std::erase(nodes, run.pid());
    REQUIRE(!nodes.empty());
    ::kill(nodes[steps % nodes.size()], SIGKILL);
  }
  const Ended ended = run.wait();
  INFO(ended.out << ended.err);
  REQUIRE(ended.code == 0);
  CHECK(ended.err.find("is lost while training") != std::string::npos);
  CHECK(troupe::test::troupe({"digest", folder / "run"}).out ==
        troupe::test::troupe({"digest", folder / "undisturbed"}).out);
}

TEST_CASE("on a GPU, too, any layout gives the same bits", "[gpu_run]") {
  // Alike all of them, but for the last: another seed has other bits.
  const auto alike = [](const Arguments& numbers, std::vector<Arguments> layouts, bool with_seed) {
    for (Arguments& sets : layouts) sets.insert(sets.end(), numbers.begin(), numbers.end());
    if (with_seed) layouts.push_back({numbers[0], "train.seed=2"});
    const std::vector<std::string> digests = digests_of(layouts);
    for (std::size_t i = 1; i < digests.size(); ++i) {
      INFO(numbers[0] << ", " << layouts[i][0]);
      CHECK((digests[i] == digests[0]) == !(with_seed && i + 1 == digests.size()));
    }
  };
  for (const std::string type : {"float32", "bfloat16"})
    alike({"train.dtype=" + type},
          {{"layout.nodes=1"},
           {"layout.expert_shards=2", "layout.chunk_rows_max=20"},
           {"layout.stages=2", "layout.expert_shards=2", "layout.chunk_rows_max=48"},
           {"layout.nodes=2", "layout.replicas=2"},
           {"train.recompute=true", "layout.stash_factor=0"}},
          true);
  alike({"train.dtype=fp8", "train.fp8_attention=true"},
        {{"layout.chunk_rows_max=256"},
         {"layout.expert_shards=2", "layout.chunk_rows_max=128"},
         {"layout.stages=2", "layout.chunk_rows_max=200"}},
        false);
  alike({"train.dtype=bfloat16", "device.products=wgmma"},
        {{"layout.nodes=1"}, {"layout.expert_shards=2", "layout.chunk_rows_max=20"}}, false);
}

TEST_CASE("rows that stay in GPUs' memory between processes give the same bits, by whatever way they go",
          "[gpu_run][device]") {
  const Folder folder;
  const std::string whole = digests_of({{}}).front();
  const std::vector<std::pair<int, Arguments>> layouts{
      {2, {"layout.replicas=2"}},
      {2, {"layout.stages=2", "layout.expert_shards=2", "layout.chunk_rows_max=48", "recovery.copies=1"}},
      {4, {"layout.stages=2", "layout.replicas=2", "layout.expert_shards=2"}}};  // two of four have one GPU
  for (const Way& way : kDeviceWays)
    for (std::size_t i = 0; i < layouts.size(); ++i) {
      const auto& [nodes, layout] = layouts[i];
      Arguments sets{"train.steps=2", "device.kind=cuda", "data.kind=random", "layout.nodes=" + std::to_string(nodes),
                     "layout.device_transport=" + way.wanted};
      sets.insert(sets.end(), layout.begin(), layout.end());
      const std::string run = folder / (way.wanted + std::to_string(i));
      const Ended ended = troupe::test::troupe(tiny_run(run, sets));
      INFO("way " << way.wanted << ", layout " << i << "\n" << ended.out << ended.err);
      REQUIRE(ended.code == 0);
      CHECK(troupe::test::troupe({"digest", run}).out == whole);
      CHECK((carried(run, nodes, "ucx") > 0) == way.by_ucx);
      CHECK((carried(run, nodes, "nccl") > 0) == way.by_nccl);
    }
}

TEST_CASE("a killed process with rows on their way between GPUs holds nobody up, and the bits are the undisturbed",
          "[gpu_run][device]") {
  const Folder folder;
  const Arguments sets{"train.steps=12",         "device.kind=cuda",        "data.kind=random",
                       "layout.nodes=2",         "layout.replicas=2",       "layout.stages=2",
                       "layout.expert_shards=2", "limits.heartbeat_ms=200", "limits.silence_ms=8000"};
  const auto digest_after = [](const std::string& run) { return troupe::test::troupe({"digest", run}).out; };
  std::string undisturbed;
  for (const std::string way : {"host", "nccl", "ucx"}) {
    Arguments own = sets;
    own.push_back("layout.device_transport=" + way);
    const std::string run = folder / way;
    Process process(troupe_command(tiny_run(run, own)), 240'000);
    std::size_t steps = 1;
    for (int kill = 0; kill < (way == "host" ? 0 : 2); ++kill, steps += 3) {
      REQUIRE(process.follow([&] { return metrics_of(run, "step").size() >= steps; }));
      std::vector<pid_t> nodes = process.members();
      std::erase(nodes, process.pid());
      REQUIRE(nodes.size() == 2);
      ::kill(nodes[static_cast<std::size_t>(kill)], SIGKILL);
      const std::size_t done = metrics_of(run, "step").size();
      REQUIRE(process.follow([&] { return metrics_of(run, "step").size() > done + 1; }));
    }
    const Ended ended = process.wait();
    INFO("way " << way << "\n" << ended.out << ended.err);
    REQUIRE(ended.code == 0);
    if (way == "host") undisturbed = digest_after(run);
    CHECK(digest_after(run) == undisturbed);
    if (way != "host") CHECK(carried(run, 2, way) > 0);
  }
}
