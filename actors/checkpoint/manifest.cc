// Checkpoint folders: their names, what they hold, and how that is proved. The law: a folder is complete or it is named
// NAME.partial; every file of a complete one stands in its manifest with size and SHA-256.
#include "actors/checkpoint/manifest.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "actors/checkpoint/safetensors.h"
#include "kernels/base/check.h"
#include "kernels/base/error.h"
#include "kernels/base/hex.h"

namespace troupe {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
constexpr const char* kManifest = "manifest.json";

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new()) {
    CHECK(context_ != nullptr && EVP_DigestInit_ex(context_, EVP_sha256(), nullptr) == 1, "no sha256 in libcrypto");
  }
  ~Sha256() { EVP_MD_CTX_free(context_); }
  Sha256(const Sha256&) = delete;

  void add(const void* data, std::size_t size) {
    CHECK(EVP_DigestUpdate(context_, data, size) == 1, "sha256 of {} bytes failed", size);
  }
  std::string hex() {
    std::string bytes(32, '\0');
    CHECK(EVP_DigestFinal_ex(context_, reinterpret_cast<unsigned char*>(bytes.data()), nullptr) == 1,
          "sha256 could not be finished");
    return to_hex(bytes);
  }

 private:
  EVP_MD_CTX* context_;
};

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error("can't open {}: {}", path.string(), std::strerror(errno));
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_synced(const fs::path& path, const std::string& text) {
  const std::string aside = path.string() + ".partial";
  const int file = ::open(aside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) throw Error("can't write {}: {}", aside, std::strerror(errno));
  const ssize_t count = ::write(file, text.data(), text.size());
  const bool is_written = count == static_cast<ssize_t>(text.size()) && ::fsync(file) == 0;
  const int reason = errno;
  ::close(file);
  if (!is_written) throw Error("can't write {}: {}", aside, std::strerror(reason));
  if (::rename(aside.c_str(), path.c_str()) != 0) throw Error("can't rename {}: {}", aside, std::strerror(errno));
}

std::string verify_file(const fs::path& path, const Json& expected, bool deep) {
  if (!expected.is_object() || !expected.contains("bytes") || !expected["bytes"].is_number_unsigned() ||
      !expected.contains("sha256") || !expected["sha256"].is_string()) {
    return fmt::format("{} of the manifest has no bytes and sha256", path.string());
  }
  std::error_code problem;
  const std::uintmax_t size = fs::file_size(path, problem);
  if (problem) return fmt::format("{} is missing: {}", path.string(), problem.message());
  const auto bytes = expected["bytes"].get<std::uintmax_t>();
  if (size != bytes) return fmt::format("{} has {} bytes, the manifest says {}", path.string(), size, bytes);
  if (!deep) return "";
  const std::string found = sha256_file(path.string()), told = expected["sha256"].get<std::string>();
  return found == told ? "" : fmt::format("{} has sha256 {}, the manifest says {}", path.string(), found, told);
}

bool holds_weights(const fs::path& folder) {
  return fs::exists(folder / "model.safetensors") || fs::exists(folder / "model.safetensors.index.json");
}

}  // namespace

std::string sha256(const std::string& bytes) {
  Sha256 digest;
  digest.add(bytes.data(), bytes.size());
  return digest.hex();
}

std::string sha256_file(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw Error("can't open {}: {}", path, std::strerror(errno));
  Sha256 digest;
  constexpr std::size_t kBlock = std::size_t{64} << 10;  // stays in the cache while it is summed
  std::array<char, kBlock> block;
  ssize_t count = 0;
  while ((count = ::read(file, block.data(), block.size())) != 0) {
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) break;
    digest.add(block.data(), static_cast<std::size_t>(count));
  }
  const int reason = errno;
  ::close(file);
  if (count < 0) throw Error("can't read {}: {}", path, std::strerror(reason));
  return digest.hex();
}

std::string checkpoint_name(std::int64_t version) {
  CHECK(version >= 0, "version {} is negative", version);
  return fmt::format("step-{:08}", version);
}

std::optional<std::int64_t> checkpoint_version(const std::string& name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  std::int64_t version = -1;
  const auto [end, problem] = std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), version);
  if (problem != std::errc() || end != name.data() + name.size() || version < 0) return std::nullopt;
  if (checkpoint_name(version) != name) return std::nullopt;
  return version;
}

std::vector<CheckpointEntry> list_checkpoints(const std::string& run) {
  std::vector<CheckpointEntry> found;
  std::error_code problem;
  for (const fs::directory_entry& entry : fs::directory_iterator(fs::path(run) / "checkpoints", problem)) {
    const auto version = checkpoint_version(entry.path().filename().string());
    if (version && entry.is_directory()) found.push_back({*version, entry.path().string()});
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.version < b.version; });
  return found;
}

std::string resolve_checkpoint(const std::string& path) {
  if (!fs::exists(path)) throw Error("{} does not exist: name a run, a checkpoint or a hugging face folder", path);
  if (!fs::is_directory(path)) throw Error("{} is a file: name the folder that holds it", path);
  if (path.ends_with(".partial") || path.ends_with(".partial/")) {
    throw Error("{} was not written to its end: name a folder without .partial", path);
  }
  if (holds_weights(path)) return path;
  // A run of several phases: the one that was trained last.
  if (fs::is_directory(fs::path(path) / "latest")) return resolve_checkpoint((fs::path(path) / "latest").string());
  const auto checkpoints = list_checkpoints(path);
  if (!checkpoints.empty()) return checkpoints.back().path;
  if (fs::is_directory(fs::path(path) / "checkpoints")) throw Error("{} has no complete checkpoint yet", path);
  throw Error("{} holds neither weights (model.safetensors) nor a run's checkpoints", path);
}

std::string verify_checkpoint(const std::string& path, bool deep) {
  try {
    const Json manifest = Json::parse(read_text(fs::path(path) / kManifest));
    if (!manifest.is_object() || !manifest.contains("files") || !manifest["files"].is_object() ||
        manifest["files"].empty()) {
      return fmt::format("{}/{} lists no files", path, kManifest);
    }
    for (const auto& [name, expected] : manifest["files"].items()) {
      if (name != fs::path(name).filename())
        return fmt::format("{}/{} names {}, not a file of its folder", path, kManifest, name);
      const std::string problem = verify_file(fs::path(path) / name, expected, deep);
      if (!problem.empty()) return problem;
    }
  } catch (const Json::exception& problem) {
    return fmt::format("{}/{} is not json ({})", path, kManifest, problem.what());
  } catch (const Error& problem) {
    return problem.what();
  }
  return "";
}

void write_manifest(const std::string& folder, const Json& extra) {
  Json files = Json::object();
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_regular_file() || name == kManifest || name.ends_with(".partial")) continue;
    files[name] = {{"bytes", entry.file_size()}, {"sha256", sha256_file(entry.path().string())}};
  }
  Json manifest = extra.is_object() ? extra : Json::object();
  manifest["files"] = std::move(files);
  write_synced(fs::path(folder) / kManifest, manifest.dump(2) + "\n");
}

std::string weights_digest(const std::string& checkpoint) {
  const SafetensorsReader reader(checkpoint);
  Sha256 digest;
  std::vector<float> block(std::size_t{1} << 18);
  for (const auto& [name, entry] : reader.entries()) {  // a map of strings: sorted bytewise
    const std::int64_t elements = entry.elements(), step = static_cast<std::int64_t>(block.size());
    for (std::int64_t begin = 0; begin < elements; begin += step) {
      const std::int64_t count = std::min(step, elements - begin);
      reader.read_f32(name, begin, count, block.data());
      digest.add(block.data(), static_cast<std::size_t>(count) * sizeof(float));
    }
  }
  return digest.hex();
}

}  // namespace troupe
