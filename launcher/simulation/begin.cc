#include "launcher/simulation/begin.h"

#include "actors/checkpoint/manifest.h"
#include "launcher/simulation/sim_corpus.h"

namespace troupe {

std::shared_ptr<const Corpus> corpus_of(const Config& config) {
  if (config.has_rollouts()) return nullptr;
  if (config.data.kind == "none") return make_sim_corpus(config);
  return open_corpus(config);
}

Recover last_checkpoint(const std::string& folder, std::uint32_t attempt) {
  Recover begin;
  begin.attempt = attempt;
  auto all = list_checkpoints(folder);
  while (!all.empty() && !verify_checkpoint(all.back().path, true).empty()) all.pop_back();
  if (all.empty()) return begin;
  begin.version = all.back().version;
  begin.path = all.back().path;
  return begin;
}

}  // namespace troupe
