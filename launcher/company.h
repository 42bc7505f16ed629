// Which object an actor's address stands for: the one place where every kind of actor is made, for a real node and for
// a simulated one alike.
#pragma once

#include "launcher/world.h"

namespace troupe {

// REQUIRES: config outlives the node.
void add_actor(Node& node, const Config& config, const WorldOptions& options, const Address& address);

}  // namespace troupe
