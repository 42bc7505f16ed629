#include "actors/checkpoint/state_file.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "kernels/base/error.h"
#include "kernels/base/mutant.h"

namespace troupe {

namespace {

constexpr std::array<const char*, kStateArrays> kFiles = {"", "/optimizer.safetensors", "/optimizer.safetensors",
                                                          "/reference.safetensors"};
constexpr std::array<const char*, kStateArrays> kSuffixes = {"", ".m", ".v", ""};

std::string name_of(const Parameter& parameter, int kind) {
  return parameter.name + kSuffixes[static_cast<std::size_t>(kind)];
}

// Models of others have no router bias.
bool may_lack(const Parameter& parameter) { return parameter.kind == ParameterKind::router_bias; }

}  // namespace

std::vector<std::int64_t> shape_of(const Parameter& parameter) {
  if (parameter.dimensions == 1) return {parameter.cols};
  return {parameter.rows, parameter.cols};
}

StateFile::StateFile(const Config& config, const std::vector<Parameter>& parameters, const Restore& restore)
    : path_(restore.path) {
  for (int kind = 0; kind < kStateArrays; ++kind) {
    if (kind > 0 && restore.weights_only) continue;
    if ((kind == 1 || kind == 2) && mutant(Mutant::moments_not_loaded)) continue;
    for (const Parameter& p : parameters) {
      const auto file = static_cast<std::size_t>(kind);
      if (!has_array(config, p, kind)) continue;
      if (!has(kind)) readers_[file].emplace(path_ + kFiles[file]);
      check(p, kind);
    }
  }
}

void StateFile::check(const Parameter& p, int kind) const {
  const SafetensorsReader& reader = *readers_[static_cast<std::size_t>(kind)];
  const std::string name = name_of(p, kind);
  if (!reader.has(name)) {
    if (may_lack(p)) return;
    throw Error("{}: tensor {} is missing; is it a checkpoint of this model?", path_, name);
  }
  // A transposed tensor has as many elements.
  const std::vector<std::int64_t>& found = reader.entries().at(name).shape;
  if (found == shape_of(p)) return;
  throw Error("{}: tensor {} has shape [{}], the configuration says [{}]; are these weights of another model?", path_,
              name, fmt::join(found, ", "), fmt::join(shape_of(p), ", "));
}

void StateFile::read(const Parameter& p, int kind, std::int64_t begin, std::int64_t count, float* out) const {
  const SafetensorsReader& reader = *readers_[static_cast<std::size_t>(kind)];
  const std::string name = name_of(p, kind);
  if (!reader.has(name)) return static_cast<void>(std::fill_n(out, count, 0.0F));
  reader.read_f32(name, begin, count, out);
}

}  // namespace troupe
