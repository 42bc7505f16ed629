// The disk: what it was asked for is done in order, and a folder in which anything failed never gets its name.
#include <poll.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "actors/checkpoint/manifest.h"
#include "actors/disk.h"
#include "kernels/base/error.h"

using namespace troupe;
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

Payload payload(const std::string& bytes) {
  Payload made{.data = std::shared_ptr<std::byte>(new std::byte[bytes.size()], std::default_delete<std::byte[]>()),
               .size = bytes.size()};
  std::memcpy(made.data.get(), bytes.data(), bytes.size());
  return made;
}

// The next outcome, waited for on the disk's descriptor as the loop does.
DiskOutcome next_outcome(Disk& disk) {
  pollfd descriptor{.fd = disk.outcome_fd(), .events = POLLIN, .revents = 0};
  REQUIRE(::poll(&descriptor, 1, 20000) == 1);
  std::vector<DiskOutcome> outcomes;
  disk.take_outcomes(outcomes);
  REQUIRE(outcomes.size() == 1);
  return outcomes[0];
}

}  // namespace

TEST_CASE("a folder written piece by piece is renamed whole and reported once", "[disk]") {
  const Scratch scratch;
  const auto disk = make_posix_disk();
  const std::string partial = scratch / "checkpoints/step-00000001.partial",
                    whole = scratch / "checkpoints/step-00000001";
  write_file(partial + "/left-over", "from an earlier try");
  disk->make_folder(partial);
  disk->write(partial + "/data", 4, payload("5678"));
  disk->write(partial + "/data", 0, payload("1234"));
  disk->write_text(partial + "/state.json", "{}");
  disk->run([&] { write_manifest(partial, nlohmann::json::object()); });
  disk->commit_folder(partial, whole);
  disk->report(3, 99);
  const DiskOutcome outcome = next_outcome(*disk);
  CHECK(outcome.actor == 3);
  CHECK(outcome.token == 99);
  CHECK(outcome.problem.empty());
  CHECK(read_file(whole + "/data") == "12345678");
  CHECK(verify_checkpoint(whole, true).empty());
  CHECK_FALSE(fs::exists(partial));
  CHECK_FALSE(fs::exists(whole + "/left-over"));
  CHECK(disk->queued_bytes() == 0);
}

TEST_CASE("the same version written again replaces the old folder", "[disk]") {
  const Scratch scratch;
  const auto disk = make_posix_disk();
  write_file(scratch / "step-00000001/old", "old");
  disk->make_folder(scratch / "step-00000001.partial");
  disk->write_text(scratch / "step-00000001.partial/new", "new");
  disk->commit_folder(scratch / "step-00000001.partial", scratch / "step-00000001");
  disk->report(1, 1);
  CHECK(next_outcome(*disk).problem.empty());
  CHECK(read_file(scratch / "step-00000001/new") == "new");
  CHECK_FALSE(fs::exists(scratch / "step-00000001/old"));
  CHECK_FALSE(fs::exists(scratch / "step-00000001.partial"));
}

TEST_CASE("after a problem on disk nothing is renamed, the older checkpoint stays, and the next try works", "[disk]") {
  const Scratch scratch;
  const std::string partial = scratch / "step-00000002.partial", whole = scratch / "step-00000002";
  write_file(scratch / "step-00000001/data", "good");
  struct Case {
    std::string says;
    std::function<void(Disk&)> fail;
  };
  const std::vector<Case> cases = {
      {"No space left", [](Disk& disk) { disk.write("/dev/full", 0, payload("12345678")); }},
      {"No such file", [&](Disk& disk) { disk.write(scratch / "nobody/data", 0, payload("1")); }},
      {"Not a directory", [](Disk& disk) { disk.write_text("/dev/null/data", "1"); }},
      {"the work failed", [](Disk& disk) { disk.run([] { throw Error("the work failed"); }); }}};
  for (const bool reports_between : {false, true}) {
    for (const Case& one : cases) {
      INFO(one.says << ", reported before the commit: " << reports_between);
      const auto disk = make_posix_disk();
      disk->make_folder(partial);
      disk->write(partial + "/data", 0, payload("1234"));
      one.fail(*disk);
      if (reports_between) {
        disk->report(1, 1);
        CHECK_THAT(next_outcome(*disk).problem, Catch::Contains(one.says));
      }
      disk->write(partial + "/after", 0, payload("1234"));
      disk->commit_folder(partial, whole);
      disk->remove_folder(scratch / "step-00000001");  // making room for the new one, which there is not
      disk->report(1, 2);
      const std::string problem = next_outcome(*disk).problem;
      CHECK_THAT(problem, Catch::Contains(reports_between ? "was not kept" : one.says));
      CHECK_FALSE(fs::exists(whole));
      CHECK_FALSE(fs::exists(partial));
      CHECK(read_file(scratch / "step-00000001/data") == "good");
      disk->make_folder(partial);
      disk->write(partial + "/data", 0, payload("1234"));
      disk->commit_folder(partial, whole);
      disk->report(1, 3);
      CHECK(next_outcome(*disk).problem.empty());
      CHECK(read_file(whole + "/data") == "1234");
      fs::remove_all(whole);
    }
  }
}

TEST_CASE("what was asked of a disk is done before it goes", "[disk]") {
  const Scratch scratch;
  make_posix_disk()->write_text(scratch / "last", "words");
  CHECK(read_file(scratch / "last") == "words");
}
