// SimCorpus: data for simulated worlds, any vocabulary, any length, no files. A batch is a pure function of seed and
// index, as the loader's law asks; some rows have no target, and documents may be isolated.
#pragma once

#include <memory>

#include "actors/data/corpus.h"

namespace troupe {

std::shared_ptr<const Corpus> make_sim_corpus(const Config& config);

}  // namespace troupe
