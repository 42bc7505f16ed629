// StateFile: a checkpoint, or somebody's weights, as the arrays of an owner's state (actors/rules/state_arrays.h). What is
// missing or has another shape is told when it is opened, before anything is taken from it.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "actors/checkpoint/safetensors.h"
#include "actors/config.h"
#include "actors/rules/state_arrays.h"
#include "messages/message.h"

namespace troupe {

// In a file.
std::vector<std::int64_t> shape_of(const Parameter& parameter);

class StateFile {
 public:
  // Throws Error: which tensor, and what is wrong with it.
  StateFile(const Config& config, const std::vector<Parameter>& parameters, const Restore& restore);
  // Otherwise moments begin at zero, and the policy is the reference.
  bool has(int kind) const { return readers_[static_cast<std::size_t>(kind)].has_value(); }
  // REQUIRES: has(kind).
  void read(const Parameter& parameter, int kind, std::int64_t begin, std::int64_t count, float* out) const;

 private:
  void check(const Parameter& parameter, int kind) const;

  std::string path_;
  std::array<std::optional<SafetensorsReader>, kStateArrays> readers_;
};

}  // namespace troupe
