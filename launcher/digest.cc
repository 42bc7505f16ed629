// `troupe digest RUN`: what two runs that are the same have in common.
#include <cstdio>

#include "actors/checkpoint/manifest.h"
#include "launcher/tools.h"

namespace troupe {

int digest(const std::string& run) {
  std::printf("%s\n", weights_digest(resolve_checkpoint(run)).c_str());
  return 0;
}

}  // namespace troupe
