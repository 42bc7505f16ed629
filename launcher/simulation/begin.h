// How a simulated world begins: what it trains on, and where it goes on from.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "actors/config.h"
#include "actors/data/corpus.h"
#include "messages/message.h"

namespace troupe {

// Null: the run has rollouts.
std::shared_ptr<const Corpus> corpus_of(const Config& config);
// As the launcher begins again: from the newest checkpoint that is whole.
Recover last_checkpoint(const std::string& folder, std::uint32_t attempt);

}  // namespace troupe
