#include "launcher/company.h"

#include "actors/checkpointer.h"
#include "actors/expert_shard.h"
#include "actors/judge.h"
#include "actors/loader.h"
#include "actors/rollout_buffer.h"
#include "actors/rules/placement.h"
#include "actors/shadow.h"
#include "actors/stage.h"

namespace troupe {

void add_actor(Node& node, const Config& config, const WorldOptions& options, const Address& address) {
  switch (address.role) {
    case Role::stage: {
      const auto stages = static_cast<std::uint32_t>(config.layout.stages);
      node.add<Stage>(address, config, static_cast<int>(address.index / stages),
                      static_cast<int>(address.index % stages), options.capture);
      return;
    }
    case Role::expert_shard: {
      const auto shards = static_cast<std::uint32_t>(config.layout.expert_shards);
      node.add<ExpertShard>(address, config, static_cast<int>(address.index / shards),
                            static_cast<int>(address.index % shards), options.capture);
      return;
    }
    case Role::loader:
      node.add<Loader>(address, config, options.corpus);
      return;
    case Role::conductor:
      node.add<Conductor>(address, config, options.mode);
      return;
    case Role::checkpointer:
      node.add<Checkpointer>(address, config, options.run_folder,
                             options.corpus ? options.corpus->provenance() : std::vector<Provenance>{});
      return;
    case Role::rollout:
      node.add<Rollout>(address, config, static_cast<int>(address.index), options.tasks, options.request, options.sink);
      return;
    case Role::rollout_buffer:
      node.add<RolloutBuffer>(address, config, options.tasks, options.run_folder, options.answers);
      return;
    case Role::judge:
      node.add<Judge>(address, config, options.tasks);
      return;
    case Role::shadow:
      node.add<Shadow>(address, config, owners(config).at(address.index));
      return;
    case Role::supervisor:
      return;
  }
}

}  // namespace troupe
