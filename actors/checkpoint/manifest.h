// A checkpoint folder: config.json (Hugging Face), model.safetensors (float32 masters, Hugging Face names and layout),
// optimizer.safetensors (NAME.m, NAME.v), state.json (version, counters, configuration digest), manifest.json (bytes
// and sha256 of each file, provenance of the data, build). It is written as NAME.partial, synced, and renamed: a folder
// without the suffix is complete.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace troupe {

// Lower-case hex SHA-256 of a file's bytes / of a string. Throws Error if the file can't be read.
std::string sha256_file(const std::string& path);
std::string sha256(const std::string& bytes);

// "step-00000300" <-> 300.
std::string checkpoint_name(std::int64_t version);
std::optional<std::int64_t> checkpoint_version(const std::string& name);

// Complete checkpoints in RUN/checkpoints, oldest first, by version. Partial ones are not listed.
struct CheckpointEntry {
  std::int64_t version;
  std::string path;
};
std::vector<CheckpointEntry> list_checkpoints(const std::string& run);
// The folder to load for what a person named: a run (its newest), a checkpoint folder, a Hugging Face directory.
// Throws Error when there is none.
std::string resolve_checkpoint(const std::string& path);

// Checks every file of the manifest: size always, sha256 when `deep`. Returns the first problem or "".
std::string verify_checkpoint(const std::string& path, bool deep);
// Writes manifest.json over the files present in `folder`; `extra` is merged in (provenance, version, build).
void write_manifest(const std::string& folder, const nlohmann::json& extra);

// SHA-256 over the float32 values of every tensor of model.safetensors, names sorted bytewise.
std::string weights_digest(const std::string& checkpoint);

}  // namespace troupe
