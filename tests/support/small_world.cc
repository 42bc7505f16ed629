#include "tests/support/small_world.h"

#include <filesystem>

#include "kernels/base/check.h"
#include "launcher/config.h"
#include "launcher/simulation/sim_world.h"
#include "tests/support/run.h"

namespace troupe::test {

SmallWorld small_world() {
  const Folder folder;
  Config config = load_config(TROUPE_SOURCE_DIR "/configs/tiny.toml",
                              {"train.steps=3", "layout.nodes=2", "layout.stages=2", "layout.expert_shards=2"});
  config.device.threads = 1;
  SimWorldOptions options;
  options.run_folder = folder / "run";
  std::filesystem::create_directories(options.run_folder + "/checkpoints");
  options.devices.resize(2);
  options.corpus = open_corpus(config);
  options.journal_records = 1 << 16;
  SimWorld world(config, options);
  world.start({});
  const bool over = world.run_until([&] { return world.finished(); }, 600'000'000) && world.settle(600'000'000);
  CHECK(over, "a small world comes to no end");
  return {world.journals(), static_cast<std::size_t>(world.segments())};
}

}  // namespace troupe::test
