// The promise of the whole system: the bits of a training run depend on its configuration's numbers and on nothing
// else: not on layout, threads, transport, chunks or credits, nor on having been killed or finding a torn checkpoint.
#include <algorithm>
#include <array>
#include <csignal>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "actors/checkpoint/manifest.h"
#include "tests/support/run.h"

#include "tests/support/catch.h"

using namespace troupe::test;
using troupe::resolve_checkpoint;
using troupe::sha256_file;
using troupe::weights_digest;

namespace {

namespace fs = std::filesystem;

// What must be equal: weights, moments, and what each step and the evaluations said.
struct Bits {
  std::string weights, moments;
  std::vector<std::string> numbers;  // loss, gradient norm, expert load of each step in order; held-out losses
  bool operator==(const Bits&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Bits& bits) {
  out << "weights " << bits.weights.substr(0, 12) << " moments " << bits.moments.substr(0, 12);
  for (const std::string& line : bits.numbers) out << "\n  " << line;
  return out;
}

Bits bits_of(const std::string& run) {
  const std::string checkpoint = resolve_checkpoint(run);
  Bits bits{weights_digest(checkpoint), sha256_file(checkpoint + "/optimizer.safetensors"), {}};
  std::map<std::int64_t, std::string> steps;  // a step done again after a kill says the same again
  for (const nlohmann::json& r : metrics_of(run, "step")) {
    const nlohmann::json said = {r.at("step"),          r.at("loss"),          r.at("mtp_loss"),
                                 r.at("gradient_norm"), r.at("learning_rate"), r.at("load_max_over_mean"),
                                 r.at("router_entropy")};
    std::string& known = steps[r.at("step")];
    known = known.empty() || known == said.dump() ? said.dump() : known + " and then " + said.dump();
  }
  for (const auto& [step, said] : steps) bits.numbers.push_back(said);
  for (const nlohmann::json& r : metrics_of(run, "evaluation"))
    bits.numbers.push_back(nlohmann::json{r.at("version"), r.at("loss"), r.at("tokens")}.dump());
  return bits;
}

Bits trained(const Arguments& sets) {
  const Folder folder;
  const std::string run = folder / "run";
  const Ended ended = troupe::test::troupe(tiny_run(run, sets));
  INFO(nlohmann::json(sets).dump() << "\n" << ended.out << ended.err);
  REQUIRE(ended.code == 0);
  return bits_of(run);
}

// ---- Layouts --------------------------------------------------------------------------------------------------------

// Replicas, stages, expert shards, nodes, transport, threads: the number of a choice in kChoices of each.
using Layout = std::vector<std::size_t>;
const std::vector<std::pair<std::string, Arguments>> kChoices = {
    {"layout.replicas", {"1", "2", "4"}},        {"layout.stages", {"1", "2"}},
    {"layout.expert_shards", {"1", "2", "4"}},   {"layout.nodes", {"1", "2", "4"}},
    {"layout.transport", {"shm", "tcp", "any"}}, {"device.threads", {"1", "2"}}};

Arguments sets_of(const Layout& layout) {
  Arguments sets;
  for (std::size_t i = 0; i < layout.size(); ++i)
    sets.push_back(kChoices[i].first + "=" + kChoices[i].second[layout[i]]);
  return sets;
}

// A node needs an actor to hold.
bool is_legal(const Layout& layout) {
  const auto value = [&](std::size_t i) { return std::stoi(kChoices[i].second[layout[i]]); };
  return value(3) <= value(1) * (value(0) + value(2));
}

std::vector<Layout> all_layouts() {
  std::vector<Layout> all{{}};
  for (const auto& [key, values] : kChoices) {
    std::vector<Layout> longer;
    for (const Layout& layout : all) {
      for (std::size_t v = 0; v < values.size(); ++v) {
        longer.push_back(layout);
        longer.back().push_back(v);
      }
    }
    all = std::move(longer);
  }
  std::erase_if(all, [](const Layout& layout) { return !is_legal(layout); });
  return all;
}

using Pair = std::array<std::size_t, 4>;  // key, value, key, value
std::set<Pair> pairs_of(const Layout& layout) {
  std::set<Pair> pairs;
  for (std::size_t i = 0; i < layout.size(); ++i)
    for (std::size_t j = i + 1; j < layout.size(); ++j) pairs.insert({i, layout[i], j, layout[j]});
  return pairs;
}

// Layouts in which every legal pair of choices occurs: always the one that has most new pairs.
std::vector<Layout> covering_layouts() {
  const std::vector<Layout> all = all_layouts();
  std::set<Pair> left;
  for (const Layout& layout : all) left.merge(pairs_of(layout));
  std::vector<Layout> chosen;
  while (!left.empty()) {
    const auto fresh = [&](const Layout& layout) {
      const auto pairs = pairs_of(layout);
      return std::count_if(pairs.begin(), pairs.end(), [&](const Pair& pair) { return left.contains(pair); });
    };
    chosen.push_back(*std::max_element(all.begin(), all.end(),
                                       [&](const Layout& a, const Layout& b) { return fresh(a) < fresh(b); }));
    for (const Pair& pair : pairs_of(chosen.back())) left.erase(pair);
  }
  return chosen;
}

void expect_same(const Bits& bits, const std::vector<Layout>& layouts, const Arguments& numbers) {
  for (const Layout& layout : layouts) {
    Arguments sets = numbers;
    for (const std::string& set : sets_of(layout)) sets.push_back(set);
    INFO(nlohmann::json(sets).dump());
    CHECK(trained(sets) == bits);
  }
}

const Arguments kBfloat16{"train.dtype=bfloat16"};
// Microbatches of 512 routed rows, so that experts have more than one tile of 128 and chunks are cut between them.
const Arguments kFp8{"train.dtype=fp8", "train.fp8_attention=true", "layout.chunk_rows_max=128",
                     "train.sequence_length=128"};
const Arguments kTiedWithMtp{"model.num_nextn_predict_layers=1", "model.tie_word_embeddings=true",
                             "model.aux_loss_alpha=0.001"};
const Arguments kQwen{"model.model_type=qwen2", "model.num_attention_heads=4", "model.num_key_value_heads=2"};

Arguments operator+(Arguments a, const Arguments& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// ---- Kills ----------------------------------------------------------------------------------------------------------

const Arguments kLong{"train.steps=60", "checkpoint.every_steps=2"};

// A moment in a run's life, seen in its folder.
using Moment = std::function<bool(const std::string& run)>;

Moment at_step(std::size_t count) {
  return [count](const std::string& run) { return metrics_of(run, "step").size() >= count; };
}
Moment at_checkpoint(std::size_t count) {
  return [count](const std::string& run) { return metrics_of(run, "checkpoint").size() >= count; };
}
// A checkpoint is being written: its folder is there, not yet under its own name.
bool inside_checkpoint(const std::string& run) {
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(run + "/checkpoints", failed))
    if (entry.path().extension() == ".partial") return true;
  return false;
}

// Kills the whole process group with SIGKILL at the moment.
void kill_at(const Moment& moment, const std::string& run, const Arguments& arguments) {
  Process process(troupe_command(arguments));
  const bool reached = process.follow([&] { return moment(run); });
  process.signal_group(SIGKILL);
  const Ended ended = process.wait();
  INFO(ended.out << ended.err);
  REQUIRE(reached);
  REQUIRE(ended.signal == SIGKILL);
  REQUIRE(process.all_gone(5000));
}

bool says(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

Ended expect_success(const Arguments& arguments) {
  Ended ended = troupe::test::troupe(arguments);
  INFO(nlohmann::json(arguments).dump() << "\n" << ended.out << ended.err);
  REQUIRE(ended.code == 0);
  return ended;
}

std::string digest_of(const std::string& run) { return weights_digest(resolve_checkpoint(run)); }

}  // namespace

TEST_CASE("the covering layouts cover every legal pair", "[same_bits]") {
  const auto chosen = covering_layouts();
  std::set<Pair> all, covered;
  for (const Layout& layout : all_layouts()) all.merge(pairs_of(layout));
  for (const Layout& layout : chosen) covered.merge(pairs_of(layout));
  CHECK(all_layouts().size() == 306);
  CHECK(covered == all);
  CHECK(chosen.size() <= 14);
}

TEST_CASE("any layout gives the same bits in float32", "[same_bits]") {
  expect_same(trained({}), covering_layouts(), {});
}

TEST_CASE("any layout gives the same bits in bfloat16, other ones than in float32", "[same_bits]") {
  const Bits bits = trained(kBfloat16);
  CHECK(bits.weights != trained({}).weights);
  expect_same(bits, covering_layouts(), kBfloat16);
}

TEST_CASE("any layout gives the same bits in fp8, other ones than in bfloat16", "[same_bits][fp8]") {
  const Bits bits = trained(kFp8);
  CHECK(bits.weights != trained(kFp8 + kBfloat16).weights);
  expect_same(bits, covering_layouts(), kFp8);
  const Arguments mlp_alone = kFp8 + Arguments{"train.fp8_attention=false"};
  const Bits others = trained(mlp_alone);
  CHECK((others.weights != bits.weights && others.weights != trained(kFp8 + kBfloat16).weights));
  CHECK(trained(mlp_alone + Arguments{"layout.stages=2", "layout.replicas=2", "layout.expert_shards=2"}) == others);
}

TEST_CASE("every legal layout gives the same bits", "[same_bits][.large]") {
  const Arguments thirty{"train.steps=30"};
  for (const Arguments& numbers : {thirty, thirty + kBfloat16, kFp8})
    expect_same(trained(numbers), all_layouts(), numbers);
}

TEST_CASE("chunks, credits, slots, stashes and recomputing change no bit", "[same_bits]") {
  const Arguments spread{"layout.stages=2", "layout.expert_shards=2"};
  for (const Arguments& numbers : {Arguments{}, kBfloat16}) {
    const Bits bits = trained(numbers);
    for (const Arguments& sets :
         {Arguments{"layout.chunk_rows_max=16"}, Arguments{"layout.chunk_rows_max=4096"},
          Arguments{"layout.chunk_credits=1", "layout.chunk_rows_max=16"}, Arguments{"layout.slots=1"},
          Arguments{"layout.stash_factor=0"}, Arguments{"train.recompute=true"},
          Arguments{"layout.chunk_credits=1", "layout.slots=1", "layout.stash_factor=0", "layout.nodes=2"}}) {
      INFO(nlohmann::json(numbers + sets).dump());
      CHECK(trained(numbers + spread + sets) == bits);
    }
  }
}

TEST_CASE("in fp8 chunks are cut between tiles, and no chunk, stash or recomputing changes a bit", "[same_bits][fp8]") {
  const Arguments spread{"layout.stages=2", "layout.expert_shards=2"};
  const Bits bits = trained(kFp8);
  for (const Arguments& sets :
       {Arguments{"layout.chunk_rows_max=200"}, Arguments{"layout.chunk_rows_max=4096"},
        Arguments{"layout.chunk_credits=1", "layout.stash_factor=0"}, Arguments{"train.recompute=true"},
        Arguments{"layout.chunk_credits=1", "layout.slots=1", "layout.stash_factor=0", "layout.nodes=2"}}) {
    INFO(nlohmann::json(sets).dump());
    CHECK(trained(kFp8 + spread + sets) == bits);
  }
  const Arguments with_mtp = kFp8 + kTiedWithMtp;
  CHECK(trained(with_mtp + spread) == trained(with_mtp));
}

TEST_CASE("another seed, another number of lanes and another microbatch give other bits", "[same_bits]") {
  const std::string weights = trained({}).weights;
  for (const std::string set : {"train.seed=2", "train.gradient_lanes=1", "train.microbatches=8",
                                "train.learning_rate=2e-3", "data.arithmetic_operations=-"}) {
    INFO(set);
    CHECK(trained({set}).weights != weights);
  }
  CHECK(trained({"train.seed=2"}) == trained({"train.seed=2", "layout.replicas=2"}));
}

TEST_CASE("multi-token prediction with tied embeddings gives the same bits over stages", "[same_bits]") {
  const Bits bits = trained(kTiedWithMtp);
  for (const Arguments& sets :
       {Arguments{"layout.stages=2"}, Arguments{"layout.stages=3", "layout.expert_shards=2"},
        Arguments{"layout.stages=2", "layout.replicas=2", "layout.nodes=2"}, Arguments{"layout.replicas=4"}}) {
    INFO(nlohmann::json(sets).dump());
    CHECK(trained(kTiedWithMtp + sets) == bits);
  }
  const Arguments untied{"model.num_nextn_predict_layers=1"};
  CHECK(trained(untied + Arguments{"layout.stages=2"}) == trained(untied));
  const Arguments half = kTiedWithMtp + kBfloat16;
  CHECK(trained(half + Arguments{"layout.stages=2", "layout.replicas=2"}) == trained(half));
}

TEST_CASE("a dense Qwen2 model gives the same bits over stages and replicas", "[same_bits]") {
  const Bits bits = trained(kQwen);
  for (const Arguments& sets : {Arguments{"layout.stages=3"}, Arguments{"layout.replicas=4", "device.threads=2"},
                                Arguments{"layout.stages=2", "layout.replicas=2", "layout.nodes=4"}}) {
    INFO(nlohmann::json(sets).dump());
    CHECK(trained(kQwen + sets) == bits);
  }
  const Arguments tied = kQwen + Arguments{"model.tie_word_embeddings=true"};
  CHECK(trained(tied + Arguments{"layout.stages=2"}) == trained(tied));
}

TEST_CASE("an exact match at the end is the same from any number of stages", "[same_bits]") {
  const auto answers = [](const Arguments& sets) {
    const Folder folder;
    const std::string run = folder / "run";
    const Arguments asked{"evaluate.exact_match_problems=4"};
    const Ended ended = troupe::test::troupe(tiny_run(run, asked + sets));
    INFO(ended.out << ended.err);
    REQUIRE(ended.code == 0);
    const auto said = metrics_of(run, "exact_match");
    REQUIRE(said.size() == 1);
    return said[0].dump();
  };
  const std::string whole = answers({});
  CHECK(answers({"layout.expert_shards=2", "layout.replicas=2", "layout.nodes=2"}) == whole);
  CHECK(answers({"layout.stages=2"}) == whole);
}

TEST_CASE("a run killed at any moment and resumed on another layout ends with the undisturbed bits", "[same_bits]") {
  const Folder folder;
  const Bits bits = trained(kLong);
  struct Life {
    std::vector<Moment> kills;
    std::vector<Arguments> layouts;  // of each part of it
    bool saved;                      // a checkpoint was written before the last kill
  };
  const Arguments one{}, spread{"layout.stages=2", "layout.expert_shards=2"}, twins{"layout.replicas=2"};
  const Arguments nodes{"layout.nodes=2", "layout.expert_shards=2"};
  int number = 0;
  for (const Life& life :
       std::vector<Life>{{{at_step(1)}, {one, spread}, false},
                         {{inside_checkpoint}, {spread, one}, false},
                         {{at_checkpoint(1)}, {spread, twins}, true},
                         {{at_checkpoint(2)}, {nodes, one}, true},
                         {{at_step(12)}, {twins, nodes}, false},
                         {{at_checkpoint(1), at_checkpoint(2), at_step(40)}, {one, nodes, spread, twins}, true}}) {
    const std::string run = folder / std::to_string(number++);
    for (std::size_t i = 0; i < life.kills.size(); ++i) {
      const Arguments sets = kLong + life.layouts[i];
      INFO("life " << number << ": " << nlohmann::json(sets).dump());
      kill_at(life.kills[i], run, i == 0 ? tiny_run(run, sets) : tiny_resume(run, sets));
    }
    const Ended ended = troupe::test::troupe(tiny_resume(run, kLong + life.layouts.back()));
    INFO(ended.out << ended.err);
    REQUIRE(ended.code == 0);
    if (life.saved) CHECK(ended.out.starts_with("starting at step "));
    CHECK(bits_of(run) == bits);  // every step said the same, however often it was done
  }
}

TEST_CASE("a run killed at many moments ends with the undisturbed bits", "[same_bits][.large]") {
  const Folder folder;
  const std::vector<Arguments> layouts{{},
                                       {"layout.nodes=2"},
                                       {"layout.stages=2", "layout.expert_shards=4"},
                                       {"layout.replicas=4", "layout.nodes=4", "layout.transport=tcp"},
                                       {"layout.replicas=2", "layout.stages=2", "layout.nodes=4"}};
  for (const Arguments& numbers : {kLong, kLong + kBfloat16}) {
    const std::string undisturbed = trained(numbers).weights;
    for (int turn = 1; turn <= 45; ++turn) {
      const Arguments &before = layouts[static_cast<std::size_t>(turn) % 5],
                      &after = layouts[static_cast<std::size_t>(turn + turn / 5 + 1) % 5];
      INFO("killed after " << 20 * turn << " ms: " << nlohmann::json(numbers + before).dump());
      const std::string path = folder / (std::to_string(numbers.size()) + "." + std::to_string(turn));
      run(troupe_command(tiny_run(path, numbers + before)), 20 * turn);
      // Killed before there was a run: then --resume starts it.
      REQUIRE(troupe::test::troupe(tiny_resume(path, numbers + after)).code == 0);
      CHECK(digest_of(path) == undisturbed);
    }
  }
}

TEST_CASE("a torn checkpoint is told, and the one before it taken", "[same_bits]") {
  const Arguments sets{"checkpoint.every_steps=2"};
  const Folder folder;
  const std::string whole = folder / "whole";
  expect_success(tiny_run(whole, sets));
  const std::string expected = digest_of(whole);
  const auto truncated = [](const std::string& file) { fs::resize_file(file, fs::file_size(file) - 1); };
  const auto changed = [](const std::string& file) {
    std::string bytes = read_file(file);
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    write_file(file, bytes);
  };
  const auto removed = [](const std::string& file) { fs::remove(file); };
  struct Tear {
    std::string file;
    std::function<void(const std::string&)> tear;
  };
  int number = 0;
  for (const Tear& tear : std::vector<Tear>{{"model.safetensors", truncated},
                                            {"optimizer.safetensors", changed},
                                            {"state.json", removed},
                                            {"manifest.json", changed}}) {
    INFO(tear.file);
    const std::string run = folder / std::to_string(number++);
    fs::copy(whole, run, fs::copy_options::recursive);
    REQUIRE(checkpoints_of(run).size() == 2);
    const std::string before = checkpoints_of(run)[0], newest = checkpoints_of(run)[1];
    tear.tear(newest + "/" + tear.file);
    const Ended ended = expect_success(tiny_resume(run, sets));
    CHECK(says(ended.err, "warning: " + newest));
    CHECK(says(ended.err, "the one before"));
    CHECK(says(ended.out, "from " + before + "\n"));
    CHECK(digest_of(run) == expected);
    // The newest is whole again: to resume once more finds nothing to tell and nothing to do.
    const Ended again = expect_success(tiny_resume(run, sets));
    INFO(again.err);
    CHECK(!says(again.err, "warning"));
    CHECK(says(again.out, "starting at step 6 from " + newest + "\n"));
    CHECK(digest_of(run) == expected);
  }
}

TEST_CASE("without any whole checkpoint a run begins again from its seed", "[same_bits]") {
  const Folder folder;
  const std::string run = folder / "run";
  const Arguments sets{"checkpoint.every_steps=2"};
  expect_success(tiny_run(run, sets));
  const std::string expected = digest_of(run);
  for (const auto& entry : fs::directory_iterator(run + "/checkpoints")) fs::remove(entry.path() / "manifest.json");
  expect_success(tiny_resume(run, sets));
  CHECK(digest_of(run) == expected);
  const auto steps = metrics_of(run, "step");
  CHECK(steps.size() == 12);
}

TEST_CASE("a finished run resumes to more steps as if it had never stopped", "[same_bits]") {
  const Folder folder;
  const std::string run = folder / "run";
  const Arguments constant{"train.schedule=constant"};
  Arguments longer = constant;
  longer.push_back("train.steps=10");
  expect_success(tiny_run(run, constant));
  expect_success(tiny_resume(run, longer));
  CHECK(digest_of(run) == trained(longer).weights);
}
