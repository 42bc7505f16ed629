// `troupe config`: a configuration with every default filled in, or all keys with their meaning.
#include <cstdio>

#include "kernels/base/error.h"
#include "launcher/config.h"
#include "launcher/tools.h"

namespace troupe {

int show_config(const std::string& config_path, const std::vector<std::string>& sets, bool keys) {
  if (keys) {
    std::fputs(describe_keys().c_str(), stdout);
    return 0;
  }
  if (config_path.empty()) throw Error("config: name a configuration file, or use --keys for the list of all keys");
  std::fputs(recipe_to_toml(load_recipe(config_path, sets)).c_str(), stdout);
  return 0;
}

}  // namespace troupe
