// What is kept: safetensors files, checkpoint folders and their proofs.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "actors/checkpoint/manifest.h"
#include "actors/checkpoint/safetensors.h"
#include "actors/checkpoint/state_file.h"
#include "kernels/base/error.h"

using namespace troupe;
using Json = nlohmann::json;
namespace fs = std::filesystem;

namespace {

struct Scratch {
  std::string path = (fs::temp_directory_path() / "troupe-checkpoint-XXXXXX").string();
  Scratch() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
  ~Scratch() { fs::remove_all(path); }
  std::string operator/(const std::string& name) const { return path + "/" + name; }
};

std::string write_file(const std::string& path, const std::string& bytes) {
  fs::create_directories(fs::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string fixture(const std::string& name) { return std::string(TROUPE_SOURCE_DIR) + "/tests/fixtures/" + name; }

std::string safetensors_bytes(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

std::string bytes_of(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

std::string problem_of_reading(const std::string& path) {
  try {
    const SafetensorsReader reader(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// A small complete checkpoint.
void write_checkpoint(const std::string& folder, float first) {
  fs::create_directories(folder);
  const std::vector<float> values{first, 2, 3, 4, 5, 6};
  SafetensorsWriter writer;
  writer.add_f32("b", {2, 2}, values.data());
  writer.add_f32("a", {2}, values.data() + 4);
  writer.write(folder + "/model.safetensors");
  write_file(folder + "/state.json", "{}");
  write_manifest(folder, Json{{"version", 7}});
}

}  // namespace

TEST_CASE("tensors come back from a written file bit for bit", "[safetensors]") {
  const Scratch scratch;
  const std::vector<float> values{0, -0.0F, 1e-45F, std::numeric_limits<float>::infinity(), 3.5F, -7};
  const std::vector<std::int64_t> counts{-1, std::int64_t{1} << 60, 3};
  SafetensorsWriter writer;
  writer.add_f32("layers.0.\"quoted\"", {2, 3}, values.data());
  writer.add_i64("counts", {3}, counts.data());
  writer.add_f32("scalar", {}, values.data() + 4);
  writer.add_f32("empty", {0, 4}, nullptr);
  writer.write(scratch / "x.safetensors");
  const SafetensorsReader reader(scratch / "x.safetensors");
  REQUIRE(reader.entries().size() == 4);
  std::vector<float> read(6);
  reader.read_f32("layers.0.\"quoted\"", 0, 6, read.data());
  CHECK(bytes_of(read) == bytes_of(values));
  reader.read_f32("layers.0.\"quoted\"", 4, 2, read.data());
  CHECK(read[0] == 3.5F);
  CHECK(reader.read_i64("counts") == counts);
  reader.read_f32("scalar", 0, 1, read.data());
  CHECK(read[0] == 3.5F);
  CHECK(reader.entries().at("empty").elements() == 0);
  CHECK_THROWS_AS(reader.read_f32("empty", 0, 1, read.data()), Error);
  CHECK_THROWS_AS(reader.read_f32("scalar", -1, 1, read.data()), Error);
  CHECK_THROWS_AS(reader.read_f32("counts", 0, 1, read.data()), Error);
  CHECK_THROWS_AS(reader.read_f32("nobody", 0, 1, read.data()), Error);
  CHECK_THROWS_AS(reader.read_i64("scalar"), Error);
  CHECK_FALSE(fs::exists(scratch / "x.safetensors.partial"));
}

TEST_CASE("tensors written at planned offsets in any order make a file that reads", "[safetensors]") {
  const Scratch scratch;
  const auto plan =
      plan_safetensors({{"odd", "F32", {3}}, {"wide", "I64", {1}}, {"narrow", "BF16", {1}}}, {{"format", "pt"}});
  std::string file(plan.file_bytes, '?');
  const float odd[] = {1, 2, 3};
  const std::int64_t wide = 9;
  const std::uint16_t narrow = 0xC049;
  std::memcpy(file.data() + plan.offset.at("narrow"), &narrow, 2);
  std::memcpy(file.data() + plan.offset.at("odd"), odd, 12);
  std::memcpy(file.data() + plan.offset.at("wide"), &wide, 8);
  std::memcpy(file.data(), plan.header.data(), plan.header.size());
  CHECK(plan.header.size() % 8 == 0);
  CHECK(plan.offset.at("wide") % 8 == 0);
  const SafetensorsReader reader(write_file(scratch / "x.safetensors", file));
  CHECK(reader.metadata().at("format") == "pt");
  CHECK(reader.read_i64("wide") == std::vector<std::int64_t>{9});
  float value = 0;
  reader.read_f32("odd", 2, 1, &value);
  CHECK(value == 3);
  reader.read_f32("narrow", 0, 1, &value);
  CHECK(value == -3.140625F);
}

TEST_CASE("every float16 value widens to the number it stands for", "[safetensors]") {
  const Scratch scratch;
  std::string data;
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    data += static_cast<char>(bits & 255);
    data += static_cast<char>(bits >> 8);
  }
  const SafetensorsReader reader(
      write_file(scratch / "h.safetensors",
                 safetensors_bytes(R"({"h":{"dtype":"F16","shape":[65536],"data_offsets":[0,131072]}})", data)));
  std::vector<float> values(65536);
  reader.read_f32("h", 0, 65536, values.data());
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const int exponent = static_cast<int>((bits >> 10) & 31), fraction = static_cast<int>(bits & 1023);
    const double magnitude = exponent == 0    ? std::ldexp(fraction, -24)
                             : exponent == 31 ? std::numeric_limits<double>::infinity()
                                              : std::ldexp(1024 + fraction, exponent - 25);
    if (exponent == 31 && fraction != 0) {
      REQUIRE(std::isnan(values[bits]));
    } else {
      REQUIRE(static_cast<double>(values[bits]) == (bits < 32768 ? magnitude : -magnitude));
      REQUIRE(std::signbit(values[bits]) == (bits >= 32768));
    }
  }
}

TEST_CASE("float64 and int32 are read, and unaligned data too", "[safetensors]") {
  const Scratch scratch;
  const double wide = 0.1;
  const std::int32_t count = -5;
  std::string data(reinterpret_cast<const char*>(&wide), 8);
  data.append(reinterpret_cast<const char*>(&count), 4);
  const std::string header =
      R"({"d":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"i":{"dtype":"I32","shape":[],"data_offsets":[8,12]}} )";
  for (const std::string padding : {"", " ", "  "}) {
    const SafetensorsReader reader(write_file(scratch / "x.safetensors", safetensors_bytes(header + padding, data)));
    float value = 0;
    reader.read_f32("d", 0, 1, &value);
    CHECK(value == 0.1F);
    CHECK(reader.read_i64("i") == std::vector<std::int64_t>{-5});
  }
}

TEST_CASE("a malformed safetensors file is refused, saying what is wrong", "[safetensors]") {
  const Scratch scratch;
  const std::string eight(8, '\0');
  const auto one = [](const std::string& fields) { return R"({"x":{)" + fields + "}}"; };
  struct Case {
    std::string says, bytes;
  };
  const std::vector<Case> cases = {
      {"too few", "1234567"},
      {"cut short", safetensors_bytes("{}", "").substr(0, 9)},
      {"not a safetensors file", "GGUF and then something else that is long enough"},
      {"is not json", safetensors_bytes("{\"x\":", "")},
      {"is not json", safetensors_bytes("{} {}", "")},
      {"not a json object", safetensors_bytes("[1]", "")},
      {"twice",
       safetensors_bytes(
           R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
           eight)},
      {"must have dtype", safetensors_bytes(one(R"("dtype":"F32","shape":[2])"), eight)},
      {"must have dtype", safetensors_bytes(R"({"x":3})", eight)},
      {"must have dtype", safetensors_bytes(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,9])"), eight)},
      {"unknown dtype F31", safetensors_bytes(one(R"("dtype":"F31","shape":[2],"data_offsets":[0,8])"), eight)},
      {"where a count must stand", safetensors_bytes(one(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"), eight)},
      {"where a count must stand",
       safetensors_bytes(one(R"("dtype":"F32","shape":[2],"data_offsets":[0,8.5])"), eight)},
      {"need 12", safetensors_bytes(one(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"), eight)},
      {"outside the 8 bytes", safetensors_bytes(one(R"("dtype":"F32","shape":[3],"data_offsets":[0,12])"), eight)},
      {"outside the 8 bytes", safetensors_bytes(one(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), eight)},
      {"larger than any memory",
       safetensors_bytes(one(R"("dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,0])"),
                         eight)},
      {"larger than any memory",
       safetensors_bytes(one(R"("dtype":"F32","shape":[9223372036854775809],"data_offsets":[0,4])"), eight)},
      {"overlaps",
       safetensors_bytes(
           R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"y":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
           eight)},
      {"belong to no tensor", safetensors_bytes(one(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"), eight)},
      {"belong to no tensor", safetensors_bytes(one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"), eight)},
      {"__metadata__", safetensors_bytes(R"({"__metadata__":{"a":1}})", "")}};
  for (const Case& bad : cases) {
    INFO(bad.says);
    const std::string problem = problem_of_reading(write_file(scratch / "bad.safetensors", bad.bytes));
    CHECK_THAT(problem, Catch::Contains(bad.says));
    CHECK_THAT(problem, Catch::Contains("bad.safetensors"));
  }
  CHECK_THAT(problem_of_reading(scratch / "nobody"), Catch::Contains("does not exist"));
  CHECK_THAT(problem_of_reading(scratch.path), Catch::Contains("neither model.safetensors nor"));
}

TEST_CASE("weights of the right count and another shape are refused with both shapes", "[safetensors]") {
  const Scratch scratch;
  const std::vector<Parameter> parameters{{.name = "head", .rows = 2, .cols = 3},
                                          {.name = "norm", .cols = 4, .dimensions = 1}};
  // What opening them says of tensors in these shapes.
  const auto problem_of = [&](const std::vector<std::int64_t>& head, const std::vector<std::int64_t>& norm) {
    const std::vector<float> values(6);
    SafetensorsWriter writer;
    writer.add_f32("head", head, values.data());
    writer.add_f32("norm", norm, values.data());
    writer.write(scratch / "model.safetensors");
    Restore restore;
    restore.path = scratch.path;
    restore.weights_only = true;
    try {
      const StateFile file(Config{}, parameters, restore);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(problem_of({2, 3}, {4}) == "");
  CHECK_THAT(problem_of({3, 2}, {4}), Catch::Contains("tensor head has shape [3, 2], the configuration says [2, 3]"));
  CHECK_THAT(problem_of({6}, {4}), Catch::Contains("tensor head has shape [6], the configuration says [2, 3]"));
  CHECK_THAT(problem_of({2, 3}, {2, 2}), Catch::Contains("tensor norm has shape [2, 2], the configuration says [4]"));
}

TEST_CASE("a sharded model reads like the same model in one file", "[safetensors]") {
  const SafetensorsReader whole(fixture("o2_v3_groups")), sharded(fixture("o2_v3_groups/sharded"));
  REQUIRE(whole.entries().size() == sharded.entries().size());
  for (const auto& [name, entry] : whole.entries()) {
    INFO(name);
    REQUIRE(sharded.has(name));
    CHECK(sharded.entries().at(name).shape == entry.shape);
    const auto count = static_cast<std::size_t>(entry.elements());
    std::vector<float> a(count), b(count);
    whole.read_f32(name, 0, entry.elements(), a.data());
    sharded.read_f32(name, 0, entry.elements(), b.data());
    CHECK(bytes_of(a) == bytes_of(b));
  }
  CHECK(weights_digest(fixture("o2_v3_groups")) == weights_digest(fixture("o2_v3_groups/sharded")));
}

TEST_CASE("an index that does not match its shards is refused by name", "[safetensors]") {
  const Scratch scratch;
  const auto index = [&](const Json& map) {
    write_file(scratch / "model.safetensors.index.json", Json{{"weight_map", map}}.dump());
    return problem_of_reading(scratch.path);
  };
  write_file(scratch / "one.safetensors",
             safetensors_bytes(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "1"));
  CHECK(index({{"x", "one.safetensors"}}).empty());
  CHECK_THAT(index({{"x", "one.safetensors"}, {"y", "two.safetensors"}, {"z", "three.safetensors"}}),
             Catch::Contains("missing: three.safetensors, two.safetensors"));
  CHECK_THAT(index({{"x", "one.safetensors"}, {"y", "one.safetensors"}}), Catch::Contains("should hold y"));
  CHECK_THAT(index({{"x", "../one.safetensors"}}), Catch::Contains("same folder"));
  CHECK_THAT(index({{"x", 1}}), Catch::Contains("same folder"));
}

TEST_CASE("sha256 is the standard one, of strings and of files", "[manifest]") {
  const Scratch scratch;
  CHECK(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256_file(write_file(scratch / "abc", "abc")) == sha256("abc"));
  const std::string large(3'000'000, 'x');
  CHECK(sha256_file(write_file(scratch / "large", large)) == sha256(large));
  CHECK_THROWS_AS(sha256_file(scratch / "nobody"), Error);
}

TEST_CASE("the digest of weights is the sha256 of their values, tensors in the order of their names", "[manifest]") {
  const Scratch scratch;
  write_checkpoint(scratch.path, 1);
  const std::vector<float> by_name{5, 6, 1, 2, 3, 4};  // "a", then "b"
  CHECK(weights_digest(scratch.path) == sha256(bytes_of(by_name)));
  const std::string before = weights_digest(scratch.path);
  write_checkpoint(scratch.path, -1);
  CHECK(weights_digest(scratch.path) != before);
  // Over a fixture's tensors, computed once with another program.
  CHECK(weights_digest(fixture("o1_moe_basic")) == "c3365ad0c09a8bb4de30937dea0ea975bb4fa3fe7f8ba218c8dca28dc5e5d8b2");
}

TEST_CASE("a checkpoint's name is its version, and nothing else is taken for one", "[manifest]") {
  CHECK(checkpoint_name(300) == "step-00000300");
  CHECK(checkpoint_name(1234567890) == "step-1234567890");
  CHECK(checkpoint_version("step-00000300") == 300);
  CHECK(checkpoint_version("step-1234567890") == 1234567890);
  for (const std::string name :
       {"step-300", "step-00000300.partial", "step-", "step-0000030x", "step--0000300", "best", "step-000000300"}) {
    INFO(name);
    CHECK_FALSE(checkpoint_version(name));
  }
}

TEST_CASE("an interrupted write leaves the last good checkpoint the newest", "[manifest]") {
  const Scratch run;
  CHECK(list_checkpoints(run.path).empty());
  CHECK_THROWS_AS(resolve_checkpoint(run.path), Error);
  write_checkpoint(run / "checkpoints/step-00000020", 1);
  write_checkpoint(run / "checkpoints/step-00000100", 2);
  write_file(run / "checkpoints/step-00000120.partial/model.safetensors", "half of");
  write_file(run / "checkpoints/step-00000130", "a file");
  const auto found = list_checkpoints(run.path);
  REQUIRE(found.size() == 2);
  CHECK(found[0].version == 20);
  CHECK(found[1].version == 100);
  CHECK(resolve_checkpoint(run.path) == run / "checkpoints/step-00000100");
  CHECK(resolve_checkpoint(run / "checkpoints/step-00000020") == run / "checkpoints/step-00000020");
  CHECK_THROWS_AS(resolve_checkpoint(run / "checkpoints/step-00000120.partial"), Error);
  CHECK_THROWS_AS(resolve_checkpoint(run / "nobody"), Error);
  CHECK(resolve_checkpoint(fixture("o2_v3_groups/sharded")) == fixture("o2_v3_groups/sharded"));
}

TEST_CASE("a changed, shortened or missing file is found by its manifest", "[manifest]") {
  const Scratch scratch;
  const std::string folder = scratch / "step-00000007";
  write_checkpoint(folder, 1);
  const std::string manifest = read_file(folder + "/manifest.json"), good = read_file(folder + "/model.safetensors");
  CHECK(Json::parse(manifest)["version"] == 7);
  CHECK(Json::parse(manifest)["files"]["state.json"]["bytes"] == 2);
  CHECK(verify_checkpoint(folder, true).empty());
  std::string bad = good;
  bad.back() ^= 1;
  write_file(folder + "/model.safetensors", bad);
  CHECK(verify_checkpoint(folder, false).empty());  // the size is right
  CHECK_THAT(verify_checkpoint(folder, true), Catch::Contains("model.safetensors has sha256"));
  write_file(folder + "/model.safetensors", good.substr(1));
  CHECK_THAT(verify_checkpoint(folder, false), Catch::Contains("model.safetensors has"));
  fs::remove(folder + "/model.safetensors");
  CHECK_THAT(verify_checkpoint(folder, false), Catch::Contains("model.safetensors is missing"));
  for (const std::string broken :
       {"", "[]", "{\"files\":{}}", "{\"files\":{\"../x\":{}}}", "{\"files\":{\"state.json\":{}}}"}) {
    INFO(broken);
    write_file(folder + "/manifest.json", broken);
    CHECK_FALSE(verify_checkpoint(folder, false).empty());
  }
  fs::remove(folder + "/manifest.json");
  CHECK_FALSE(verify_checkpoint(folder, false).empty());
}
