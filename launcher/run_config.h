// The configuration of something that exists: a run, one of its checkpoints, or a Hugging Face directory.
#pragma once

#include <string>
#include <vector>

#include "actors/config.h"

namespace troupe {

struct Loaded {
  Config config;           // layout: one process
  std::string checkpoint;  // folder with config.json and model.safetensors
};
Loaded load_model(const std::string& path, const std::vector<std::string>& sets);

}  // namespace troupe
