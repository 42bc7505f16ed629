// The configuration reader: what it accepts, what it refuses and how it says so, and that its text reads back equal.
#include "launcher/config.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "kernels/base/error.h"
#include "launcher/config_keys.h"

namespace troupe {
namespace {

namespace fs = std::filesystem;

const std::string kSource = TROUPE_SOURCE_DIR;
// The smallest legal configuration: everything else is a default.
const std::string kArithmetic = "[data]\nkind = \"arithmetic\"\n";

// A file that is gone with the test.
class TemporaryFile {
 public:
  TemporaryFile(const std::string& name, const std::string& text)
      : folder_(fs::temp_directory_path() / fs::path("troupe_config_test_XXXXXX")) {
    std::string pattern = folder_.string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    folder_ = pattern;
    std::ofstream(folder_ / name) << text;
    path = (folder_ / name).string();
  }
  ~TemporaryFile() { fs::remove_all(folder_); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  std::string folder() const { return folder_.string(); }
  std::string path;

 private:
  fs::path folder_;
};

// What the reader says of a text that it must refuse.
std::string refusal(const std::string& text, const std::vector<std::string>& sets = {}) {
  try {
    config_from_text(text, "t.toml", sets);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

// What check_config says of the defaults after a change; arithmetic data, so that no file is needed.
std::string refusal_after(void (*change)(Config&)) {
  Config config;
  config.data.kind = "arithmetic";
  change(config);
  try {
    check_config(config);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

struct Broken {
  std::string text;                    // after [data] kind = "arithmetic" on lines 1 and 2
  std::vector<std::string> fragments;  // all of them in the refusal
};

void expect_refused(const std::vector<Broken>& table) {
  for (const Broken& broken : table) {
    const std::string said = refusal(kArithmetic + broken.text);
    for (const std::string& fragment : broken.fragments) {
      INFO("text: " << broken.text << "\nsaid: " << said << "\nmust have: " << fragment);
      CHECK(said.find(fragment) != std::string::npos);
    }
    CHECK(said.find('\n') == std::string::npos);
    CHECK((!said.ends_with(".") || said.ends_with("..")));  // a range may end the sentence: "must be 1.."
  }
}

}  // namespace

TEST_CASE("a configuration that says nothing has the defaults of its struct", "[config]") {
  const Config config = config_from_text(kArithmetic, "t.toml", {});
  Config expected;
  expected.data.kind = "arithmetic";
  expected.hardware = config.hardware;
  CHECK(config_to_toml(config) == config_to_toml(expected));
}

TEST_CASE("every key of a configuration survives being written and read back", "[config]") {
  const TemporaryFile text("a \"b\".txt", "some text");
  Config config;
  config.name = "round-trip_1.0";
  config.model.q_lora_rank = 24;
  config.model.rope_scaling = RopeScaling{.factor = 2.5, .original_max_position_embeddings = 64, .beta_fast = 4};
  config.model.tie_word_embeddings = true;
  config.train.steps = 123456789012;
  config.train.seed = 9007199254740991;
  config.train.learning_rate = 0.1 + 0.2;
  config.train.epsilon = 1e-15;
  config.train.batch_sequences = 32;
  config.train.start_from = "a\\b \"c\"\n\x7f";
  config.data.files = {text.path};
  config.data.weights = {0.3};
  config.checkpoint.keep_best = false;
  config.layout.interface = "lo";
  config.hardware.dollars_per_hour = 4;
  config.hardware.source = "here";
  const std::string written = config_to_toml(config);
  const Config again = config_from_text(written, "elsewhere/config.toml", {});
  CHECK(config_to_toml(again) == written);
  CHECK(again.model == config.model);
  CHECK(again.train.seed == config.train.seed);
  CHECK(again.train.learning_rate == config.train.learning_rate);
  CHECK(again.train.start_from == config.train.start_from);
  CHECK(again.data.files == config.data.files);
  CHECK(again.hardware.dollars_per_hour == 4);
  CHECK(numbers_digest(again) == numbers_digest(config));
  config.model.q_lora_rank.reset();
  config.model.rope_scaling.reset();
  CHECK(config_from_text(config_to_toml(config), "t.toml", {}).model == config.model);
}

TEST_CASE("every shipped configuration loads", "[config]") {
  const TemporaryFile text("shakespeare.txt", "To be, or not to be");
  int count = 0;
  for (const auto& entry : fs::directory_iterator(kSource + "/configs")) {
    if (entry.path().extension() != ".toml") continue;
    INFO(entry.path().string());
    const Recipe recipe = load_recipe(entry.path().string(), {"data.files=" + text.path});
    CHECK(recipe.name == entry.path().stem().string());
    for (const Config& config : recipe.phases) {
      CHECK(config.train.gradient_lanes % 4 == 0);
      CHECK(config.hardware.name == config.device.hardware);
    }
    ++count;
  }
  CHECK(count >= 3);
}

TEST_CASE("shakespeare.toml has the reference trainer's numbers", "[config]") {
  const TemporaryFile text("shakespeare.txt", "To be, or not to be");
  const Config config = load_config(kSource + "/configs/shakespeare.toml", {"data.files=[\"" + text.path + "\"]"});
  CHECK(config.data.files == std::vector<std::string>{text.path});
  CHECK(config.model.q_lora_rank == 64);
  CHECK(config.train.steps == 600);
  CHECK(config.microbatch_sequences() == 4);
  CHECK(config.model.aux_loss_alpha == 1e-4);
}

TEST_CASE("a broken configuration is refused with file, line, key and what to do", "[config]") {
  expect_refused({
      {"x = ", {"t.toml:3:", "not TOML"}},
      {"[train]\nsteps = 3\nsteps = 4\n", {"t.toml:5:", "not TOML", "steps"}},
      {"[train]\nstpes = 3\n", {"t.toml:4: train.stpes is not a key", "did you mean train.steps", "--keys"}},
      {"[train]\nvocab_size = 300\n", {"t.toml:4: train.vocab_size is not a key", "did you mean model.vocab_size"}},
      {"[train]\nzzzzzzzzzzzz = 3\n", {"t.toml:4: train.zzzzzzzzzzzz is not a key", "troupe config --keys"}},
      {"[trian]\nsteps = 3\n", {"t.toml:3: trian is not a table", "did you mean train"}},
      {"[layuot]\n", {"t.toml:3: layuot is not a table", "did you mean layout"}},
      {"[[train]]\nsteps = 3\n", {"train is a list, must be a table: [train]"}},
      {"[train]\nsteps = \"many\"\n", {"t.toml:4: train.steps is \"many\" (a string), must be an integer"}},
      {"[train]\nsteps = 3.5\n", {"t.toml:4: train.steps is 3.5", "must be an integer"}},
      {"[train]\nsteps = {a = 1}\n", {"t.toml:4: train.steps is a table, must be a value"}},
      {"[train]\nlearning_rate = \"fast\"\n", {"t.toml:4: train.learning_rate", "must be a number"}},
      {"[train]\nlearning_rate = nan\n", {"t.toml:4: train.learning_rate is nan", "must be 0.."}},
      {"[train]\nlearning_rate = inf\n", {"t.toml:4: train.learning_rate is inf", "must be 0.."}},
      {"[train]\nrecompute = 1\n", {"t.toml:4: train.recompute", "must be true or false"}},
      {"[train]\ndtype = \"float16\"\n", {"t.toml:4: train.dtype is \"float16\", must be float32 or bfloat16"}},
      {"[train]\nschedule = \"linear\"\n", {"t.toml:4: train.schedule", "cosine or wsd or constant"}},
      {"[train]\nsteps = 0\n", {"t.toml:4: train.steps is 0, must be 1..9007199254740991"}},
      {"[train]\nseed = -1\n", {"t.toml:4: train.seed is -1", "must be 0.."}},
      {"[train]\nmicrobatches = 99999999999\n", {"t.toml:4: train.microbatches is 99999999999", "at most 2147483647"}},
      {"[train]\nbeta1 = 1\n", {"t.toml:4: train.beta1 is 1.0, must be 0..1 without 1"}},
      {"[train]\nepsilon = 0\n", {"t.toml:4: train.epsilon is 0.0, must be above 0"}},
      {"held_out = 1.5\n", {"t.toml:3: data.held_out is 1.5, must be 0..1"}},
      {"files = 3\n", {"t.toml:3: data.files is 3", "must be a list of strings"}},
      {"files = [3]\n", {"t.toml:3: data.files", "must be a list of strings"}},
      {"template = \"r2\"\n", {"t.toml:3: data.template is \"r2\", must be plain or r1"}},
      {"long_examples = \"keep\"\n", {"t.toml:3: data.long_examples is \"keep\", must be refuse or drop or truncate"}},
      {"weights = [1, -2]\n", {"t.toml:3: data.weights has -2, must be above 0"}},
      {"[device]\nhardware = \"abacus\"\n", {"t.toml:4: device.hardware is \"abacus\"", "cpu.toml", "hardware/abacus"}},
      {"[model]\nconfig = \"no.json\"\n", {"t.toml:4: model.config: no.json: no such file"}},
      {"[model]\nrope_scaling = 4\n", {"t.toml:4: model.rope_scaling is 4", "must be a table"}},
      {"[model]\nrope_scaling = {type = \"ntk\"}\n", {"t.toml:4: model.rope_scaling.type", "yarn or none"}},
      {"[model]\nrope_scaling = {type = \"yarn\", factro = 4}\n", {"t.toml:4: model.rope_scaling.factro", "factor"}},
      {"[model]\nnum_experts_per_tok = 9\n", {"t.toml:4: model.num_experts_per_tok is 9, must be 1..8"}},
      {"[limits]\nsilence_ms = 100\n", {"t.toml:4: limits.silence_ms is 100", "limits.heartbeat_ms (500)"}},
  });
}

TEST_CASE("values that contradict one another are refused, naming both keys", "[config]") {
  expect_refused({
      {"[train]\nmicrobatches = 5\n", {"t.toml:4: train.microbatches is 5, must divide train.batch_sequences (16)"}},
      {"[train]\ngradient_lanes = 3\n", {"t.toml:4: train.gradient_lanes is 3, must be a power of two"}},
      {"[train]\ngradient_lanes = 8\n", {"t.toml:4: train.gradient_lanes is 8, must divide train.microbatches (4)"}},
      {"[train]\ngradient_lanes = 4\n[layout]\nreplicas = 3\n",
       {"t.toml:6: layout.replicas is 3, must divide train.gradient_lanes (4): each replica takes whole lanes"}},
      {"[layout]\nstages = 5\n", {"t.toml:4: layout.stages is 5, must be at most model.num_hidden_layers (4)"}},
      {"[layout]\nexpert_shards = 9\n", {"t.toml:4: layout.expert_shards is 9", "model.n_routed_experts (8)"}},
      {"[layout]\nexpert_shards = 2\n[model]\nn_routed_experts = 0\n",
       {"t.toml:4: layout.expert_shards", "no experts"}},
      {"[layout]\nnodes = 3\n", {"t.toml:4: layout.nodes is 3, must be at most 2: there are 1 stage and 1 shard"}},
      {"[layout]\nchunk_rows_max = 8\n", {"t.toml:4: layout.chunk_rows_max is 8, must be 16.."}},
      {"[layout]\nchunk_rows_max = 64\n[train]\ndtype = \"fp8\"\n",
       {"t.toml:4: layout.chunk_rows_max is 64, must be 128.. with train.dtype = \"fp8\""}},
      {"[train]\nsequence_length = 5000\n",
       {"t.toml:4: train.sequence_length", "model.max_position_embeddings (4096)"}},
      {"[train]\nsequence_length = 2\n[model]\nnum_nextn_predict_layers = 1\n",
       {"t.toml:4: train.sequence_length is 2"}},
      {"[generate]\nlength_max = 5000\n", {"t.toml:4: generate.length_max is 5000, must be at most"}},
      {"[model]\nvocab_size = 100\n",
       {"t.toml:4: model.vocab_size is 100, must be 128.. for data.kind = \"arithmetic\""}},
      {"arithmetic_operations = \"/\"\n", {"t.toml:3: data.arithmetic_operations is \"/\", must be some of + - *"}},
  });
  CHECK(refusal("name = \"a/b\"\n" + kArithmetic).find("t.toml:1: name is \"a/b\", must be") == 0);
}

TEST_CASE("text needs files that exist, a weight for each, and 256 tokens", "[config]") {
  const TemporaryFile text("a.txt", "some text");
  CHECK(refusal("").find("t.toml: data.files is empty") == 0);
  const std::string missing = refusal("[data]\nfiles = [\"no.txt\"]\n");
  CHECK(missing.find("t.toml:2: data.files names no.txt, which does not exist") == 0);
  CHECK(missing.find("--set data.files=PATH") != std::string::npos);
  CHECK(refusal("", {"data.files=" + text.folder()}).find("is a folder") != std::string::npos);
  const std::string file = "data.files=" + text.path;
  CHECK(refusal("", {file, "data.tokenizer=no.json"}).find("there is no file no.json: name a tokenizer.json") !=
        std::string::npos);
  CHECK(refusal("", {"data.kind=arithmetic", "data.tokenizer=no.json"}).find("must be \"bytes\"") != std::string::npos);
  CHECK(refusal("", {file, "data.weights=[1, 2]"}).find("--set data.weights=[1, 2]: data.weights has 2 numbers") == 0);
  CHECK(refusal("", {file, "model.vocab_size=255"}).find("must be 256.. for data.kind = \"text\"") !=
        std::string::npos);
  CHECK(refusal("", {file}) == "accepted");
}

TEST_CASE("a task that can't be given is refused before anything runs", "[config]") {
  expect_refused({
      {"[task]\nnames = [\"revers\"]\n", {"t.toml:4: task.names has \"revers\", must be of arithmetic, reverse"}},
      {"[task]\nnames = [\"sort\"]\nlevel_min = 4\n", {"task.level_max is 3, must be at least task.level_min (4)"}},
      {"[task]\nnames = [\"countdown\"]\nlevel_max = 7\n",
       {"t.toml:5: task.level_max is 7, must be at most 6 for task countdown"}},
      {"[task]\nnames = [\"arithmetic\"]\noperations = \"/\"\n", {"t.toml:5: task.operations is \"/\", must be some"}},
      {"[task]\nnames = [\"jsonl\"]\n", {"task.files is empty, must name a file for task jsonl"}},
      {"[task]\nnames = [\"jsonl\"]\nfiles = [\"no.jsonl\"]\n", {"t.toml:5: task.files names no.jsonl, which does"}},
      {"[task]\ntemplate = \"r2\"\n", {"t.toml:4: task.template is \"r2\", must be plain or r1"}},
      {"[task]\ncorrupt = 2\n", {"t.toml:4: task.corrupt is 2.0, must be 0..1"}},
      {"[judge]\non_failure = \"go\"\n", {"t.toml:4: judge.on_failure is \"go\", must be stop or zero"}},
      {"[judge]\ncpu_seconds = 20\n", {"t.toml:4: judge.cpu_seconds is 20, must be below judge.wall_seconds (20)"}},
      {"[judge]\nprocesses = 0\n", {"t.toml:4: judge.processes is 0, must be 1.."}},
      {"[task]\nnames = [\"sort\"]\n[evaluate]\nproblems = 4\nsplit = \"train\"\n",
       {"t.toml:7: evaluate.split is \"train\", must be \"held_out\" for kind = \"pretrain\""}},
  });
  CHECK(refusal("[data]\nkind = \"task\"\n").find("t.toml: task.names is empty") == 0);
  CHECK(refusal("[data]\nkind = \"task\"\n[task]\nnames = [\"sort\"]\n") == "accepted");
}

TEST_CASE("experts that can't learn are refused before anything runs", "[config]") {
  const auto sparse = [](const std::string& train) {
    return refusal("[train]\n" + train,
                   {"model.model_type=deepseek_v3", "model.num_hidden_layers=3", "model.first_k_dense_replace=1",
                    "model.n_routed_experts=4", "model.num_experts_per_tok=2", "model.num_nextn_predict_layers=1",
                    "data.kind=none"});
  };
  const std::string some = "trainable = \"experts\"\n";
  CHECK(sparse(some + "experts = [\"1.3\", \"3.0\"]\n") == "accepted");
  CHECK(sparse(some + "experts_threshold = 0.2\n") == "accepted");
  for (const auto& [written, said] : std::vector<std::pair<std::string, std::string>>{
           {some, "train.experts is empty, must name experts for train.trainable = \"experts\", as in [\"1.3\"]"},
           {some + "experts = [\"1.4\"]\n", "train.experts has \"1.4\", but the experts of a layer are 0..3"},
           {some + "experts = [\"4.0\"]\n", "train.experts has \"4.0\", but the layers are 0..3"},
           {some + "experts = [\"0.0\"]\n", "train.experts has \"0.0\", but layer 0 has no experts"},
           {some + "experts = [\"1.3\", \"1.3\"]\n", "train.experts has \"1.3\" twice: name it once"},
           {some + "experts = [\"1-3\"]\n", "train.experts has \"1-3\", must be a layer and an expert of it"},
           {some + "experts_threshold = 1.5\n", "train.experts_threshold is 1.5, must be 0..1"},
           {some + "experts_score = \"gate\"\n", "train.experts_score is \"gate\", must be token"},
           {"experts = [\"1.3\"]\n", "train.experts is set, but train.trainable is \"all\": set it to \"experts\""},
           {"experts_threshold = 0.2\n", "train.experts_threshold is set, but train.trainable is \"all\""}}) {
    INFO(written);
    CHECK_THAT(sparse(written), Catch::Contains(said));
  }
  CHECK_THAT(refusal("[train]\n" + some, {"model.model_type=qwen2"}),
             Catch::Contains("train.trainable is \"experts\", must be \"all\": the model has no experts"));
}

TEST_CASE("a relative data file is found beside the configuration and above it, and kept absolute", "[config]") {
  const TemporaryFile text("words_of_config_test.txt", "some text");
  fs::create_directory(text.folder() + "/inner");
  for (const std::string folder : {"", "/inner"}) {
    const std::string file_name = text.folder() + folder + "/t.toml";
    const Config config = config_from_text("[data]\nfiles = [\"words_of_config_test.txt\"]\n", file_name, {});
    CHECK(config.data.files == std::vector<std::string>{text.path});
  }
}

TEST_CASE("--set takes TOML, bare words and whole tables, and the last one wins", "[config]") {
  const auto read = [](const std::vector<std::string>& sets) { return config_from_text(kArithmetic, "t.toml", sets); };
  CHECK(read({"train.steps=30"}).train.steps == 30);
  CHECK(read({"train.steps=30", " train.steps = 40 "}).train.steps == 40);
  CHECK(read({"train.dtype=\"bfloat16\""}).train.dtype == "bfloat16");
  CHECK(read({"train.dtype=bfloat16"}).train.dtype == "bfloat16");
  CHECK(read({"train.start_from=runs/a/checkpoints/10"}).train.start_from == "runs/a/checkpoints/10");
  CHECK(read({"train.start_from="}).train.start_from.empty());
  CHECK(read({"name=2024-01-01"}).name == "2024-01-01");
  CHECK(read({"name=7"}).name == "7");
  CHECK(read({"train.learning_rate=1"}).train.learning_rate == 1.0);
  CHECK(read({"checkpoint.keep_best=false"}).checkpoint.keep_best == false);
  CHECK(read({"data.files=[\"a.txt\", \"b.txt\"]"}).data.files.size() == 2);
  CHECK(read({"hardware.dollars_per_hour=2"}).hardware.dollars_per_hour == 2);
  CHECK(read({"model.rope_scaling={type=\"yarn\", factor=4}"}).model.rope_scaling->factor == 4);
  CHECK(!read({"model.rope_scaling.factor=4", "model.rope_scaling.type=none"}).model.rope_scaling);
  CHECK(!read({"model.q_lora_rank=8", "model.q_lora_rank=0"}).model.q_lora_rank);
}

TEST_CASE("an error in --set names its text", "[config]") {
  const auto said = [](const std::string& set) { return refusal(kArithmetic, {set}); };
  CHECK(said("train.steps").find("--set train.steps: must be KEY=VALUE") == 0);
  CHECK(said("=3").find("--set =3: must be KEY=VALUE") == 0);
  CHECK(said("train.stps=3").find("--set train.stps=3: train.stps is not a key, did you mean train.steps") == 0);
  CHECK(said("train.steps=many").find("--set train.steps=many: train.steps is \"many\"") == 0);
  CHECK(said("train.steps=0").find("--set train.steps=0: train.steps is 0, must be 1..") == 0);
  CHECK(said("train=3").find("--set train=3: train is 3 (an integer), must be a table") == 0);
  CHECK(said("data.files=[\"a").find("--set data.files=[\"a: not TOML") == 0);
  CHECK(said("layout.replicas=3").find("--set layout.replicas=3: layout.replicas is 3, must divide") == 0);
}

TEST_CASE("model.config starts from a config.json and [model] overrides it", "[config]") {
  const std::string json = kSource + "/tests/fixtures/o4_yarn_nonorm/config.json";
  const std::string text = kArithmetic + "[model]\nv_head_dim = 8\nvocab_size = 128\nconfig = \"" + json + "\"\n";
  const Config config = config_from_text(text + "[train]\nsequence_length = 64\n", "t.toml", {});
  CHECK(config.model.hidden_size == 32);
  CHECK(config.model.v_head_dim == 8);
  REQUIRE(config.model.rope_scaling);
  CHECK(config.model.rope_scaling->factor == 4);
  const std::string said = refusal(text + "[train]\nsequence_length = 64\n[layout]\nstages = 3\n");
  CHECK(said.find("t.toml:10: layout.stages is 3") == 0);
  const std::string small = refusal(kArithmetic + "[model]\nconfig = \"" + json + "\"\n");
  CHECK(small.find("t.toml:4: model.vocab_size is 96") != std::string::npos);
}

TEST_CASE("hardware is read from its file, and a resolved configuration carries its own", "[config]") {
  const TemporaryFile file("fast.toml", "name = \"fast\"\nfloat32_gflops = 5000\n");
  const auto read = [](const std::string& text, const std::vector<std::string>& sets) {
    return config_from_text(kArithmetic + text, "t.toml", sets).hardware;
  };
  CHECK(read("", {"device.hardware=" + file.path}).float32_gflops == 5000);
  CHECK(read("", {"device.hardware=" + file.path, "hardware.float32_gflops=7"}).float32_gflops == 7);
  const std::string resolved = "[device]\nhardware = \"gone\"\n[hardware]\nfloat32_gflops = 9\n";
  CHECK(read(resolved, {}).float32_gflops == 9);
  CHECK(read(resolved, {"device.hardware=" + file.path}).float32_gflops == 5000);
  const TemporaryFile wrong("wrong.toml", "name = \"wrong\"\nfloat32_gflop = 5000\n");
  const std::string said = refusal(kArithmetic, {"device.hardware=" + wrong.path});
  CHECK(said.find("wrong.toml:2: hardware.float32_gflop is not a key, did you mean hardware.float32_gflops") !=
        std::string::npos);
}

TEST_CASE("a missing or unreadable file is named", "[config]") {
  CHECK_THROWS_WITH(load_config("no/such.toml", {}), "no/such.toml: no such file");
  CHECK_THROWS_WITH(load_config("/", {}), "/: is a folder, must be a file");
}

TEST_CASE("the digest covers what the numbers depend on and nothing else", "[config]") {
  const auto digest = [](const std::vector<std::string>& sets) {
    return numbers_digest(config_from_text(kArithmetic, "t.toml", sets));
  };
  const std::string base = digest({});
  CHECK(base.size() == 64);
  for (const std::string same : {"name=other", "layout.stages=2", "device.threads=1", "limits.start_seconds=9",
                                 "checkpoint.keep_last=5", "evaluate.every_steps=1", "train.recompute=true"}) {
    INFO(same);
    CHECK(digest({same}) == base);
  }
  for (const std::string other : {"train.seed=2", "train.gradient_lanes=2", "model.hidden_size=64",
                                  "data.arithmetic_digits=2", "train.dtype=bfloat16", "model.rope_scaling.type=yarn"}) {
    INFO(other);
    CHECK(digest({other}) != base);
  }
}

TEST_CASE("changed numbers are listed with both values; how long and how often don't count", "[config]") {
  const auto read = [](const std::vector<std::string>& sets) { return config_from_text(kArithmetic, "t.toml", sets); };
  const Config before = read({});
  CHECK(changed_numbers(before, read({"train.steps=7", "evaluate.every_steps=3", "layout.stages=2"})).empty());
  CHECK(changed_numbers(before, read({"train.seed=2", "model.q_lora_rank=8"})) ==
        std::vector<std::string>{"model.q_lora_rank: absent -> 8", "train.seed: 1 -> 2"});
}

TEST_CASE("check_config finds what a program set wrong", "[config]") {
  CHECK(refusal_after([](Config&) {}) == "accepted");
  CHECK(refusal_after([](Config& c) { c.train.microbatches = 0; }) == "train.microbatches is 0, must be 1..");
  CHECK(refusal_after([](Config& c) { c.train.clip_norm = -1; }) == "train.clip_norm is -1.0, must be 0..");
  CHECK(refusal_after([](Config& c) { c.layout.transport = "pigeon"; }).find("auto or shm or tcp or ib or any") !=
        std::string::npos);
  CHECK(refusal_after([](Config& c) { c.model.num_experts_per_tok = 9; }).find("model.num_experts_per_tok") == 0);
}

TEST_CASE("the list of keys tells type, default, range and meaning", "[config]") {
  const std::string text = describe_keys();
  CHECK(text.find("train.steps = 1000: optimizer steps (an integer, 1..9007199254740991)\n") != std::string::npos);
  CHECK(text.find("train.dtype = \"float32\": ") != std::string::npos);
  CHECK(text.find("model.q_lora_rank = absent: ") != std::string::npos);
  CHECK(text.find("model.config = PATH") != std::string::npos);
  for (const Key& key : config_keys()) CHECK(key.meaning.size() > 5);
}

}  // namespace troupe
