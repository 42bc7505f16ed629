// Address: where an actor lives. Node = process; an actor's role and index name it for people and for the wire.
#pragma once

#include <cstdint>
#include <string>

namespace troupe {

enum class Role : std::uint8_t {
  supervisor,
  loader,
  conductor,
  stage,
  expert_shard,
  checkpointer,
  rollout,
  shadow,
  rollout_buffer,
  judge
};
constexpr std::uint8_t kRoles = 10;

// stage: index = replica * stages + stage.  expert_shard: index = stage * expert_shards + shard.  shadow: the place of
// the owner that it shadows in owners(config). rollout: replica. others: 0.
struct Address {
  Role role = Role::supervisor;
  std::uint32_t index = 0;
  friend bool operator==(const Address&, const Address&) = default;
  friend auto operator<=>(const Address&, const Address&) = default;
};

std::string to_string(const Address& address);  // "stage 3", "expert_shard 0"

}  // namespace troupe
