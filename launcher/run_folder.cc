#include "launcher/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "actors/checkpoint/manifest.h"
#include "actors/data/tokenizer.h"
#include "kernels/base/error.h"
#include "launcher/config.h"
#include "launcher/whole_file.h"

namespace troupe {

namespace fs = std::filesystem;

RunFolder::RunFolder(std::string path, bool resume) : path_(std::move(path)) {
  const bool exists = fs::exists(path_ + "/config.toml");
  std::error_code none;
  const auto told = fs::file_size(path_ + "/metrics.jsonl", none);
  if (exists && fs::exists(path_ + "/phases"))
    throw Error(
        "{}: a run is here already, of phases; continue it with its own configuration ({}/config.toml), or "
        "choose another folder with --out",
        path_, path_);
  const bool began = exists && ((!none && told > 0) || !list_checkpoints(path_).empty());
  if (began && !resume)
    throw Error("{}: a run is here already; continue it with --resume, or choose another folder with --out", path_);
  if (!exists && resume)
    throw Error("{}: there is no run to resume (no config.toml); start it without --resume", path_);
  std::error_code failed;
  fs::create_directories(path_ + "/checkpoints", failed);
  if (!failed) fs::create_directories(path_ + "/logs", failed);
  if (failed) throw Error("{}: can't make the run's folder: {}", path_, failed.message());
  lock_fd_ = open((path_ + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_fd_ < 0) throw Error("{}/lock: can't be opened; is the folder writable?", path_);
  if (flock(lock_fd_, LOCK_EX | LOCK_NB) != 0)
    throw Error("{}: another process is running in this folder; wait for it, or choose another with --out", path_);
  metrics_fd_ = open((path_ + "/metrics.jsonl").c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (metrics_fd_ < 0) throw Error("{}/metrics.jsonl: can't be written: {}", path_, std::strerror(errno));
  char last = '\n';  // whoever was killed while it wrote left a line without its end
  if (const off_t size = lseek(metrics_fd_, 0, SEEK_END); size > 0) (void)!pread(metrics_fd_, &last, 1, size - 1);
  if (last != '\n') unwritten_ = "\n";
}

RunFolder::~RunFolder() {
  if (metrics_fd_ >= 0) close(metrics_fd_);
  if (lock_fd_ >= 0) close(lock_fd_);
}

void RunFolder::begin(const Config& config) const {
  std::error_code failed;
  fs::remove_all(path_ + "/boards", failed);
  fs::create_directories(path_ + "/boards", failed);
  keep_tokenizer(config.data.tokenizer);
  write_whole_file(path_ + "/config.toml", config_to_toml(config));
}

// The folder holds all that is needed to talk to the model; and a run goes on with the tokenizer that it began with.
void RunFolder::keep_tokenizer(const std::string& name) const {
  const std::string from = tokenizer_file_of(name), kept = path_ + "/tokenizer.json";
  if (from.empty()) return;
  if (fs::exists(kept)) {
    if (sha256_file(from) == sha256_file(kept)) return;
    throw Error("{} is not the tokenizer that {} began with ({}): name that one with --set data.tokenizer={}", from,
                path_, kept, kept);
  }
  std::error_code failed;
  fs::copy_file(from, kept, failed);
  const fs::path told = fs::path(from).parent_path() / "tokenizer_config.json";
  if (!failed && fs::exists(told)) fs::copy_file(told, path_ + "/tokenizer_config.json", failed);
  if (failed) throw Error("{}: can't be written: {}; is the disk full?", kept, failed.message());
}

// Lines that find no room wait, and go with the next that does.
void RunFolder::append_metrics(const std::string& json_line) {
  constexpr std::size_t kWaitingMost = std::size_t{16} << 20;
  const std::lock_guard lock(metrics_mutex_);
  unwritten_ += json_line + '\n';
  std::size_t written = 0;
  while (written < unwritten_.size()) {
    const ssize_t count = write(metrics_fd_, unwritten_.data() + written, unwritten_.size() - written);
    if (count < 0 && errno != EINTR) break;
    written += count > 0 ? static_cast<std::size_t>(count) : 0;
  }
  const int reason = errno;
  unwritten_.erase(0, written);
  if (unwritten_.size() > kWaitingMost)
    throw Error("{}/metrics.jsonl: can't be written: {}; make room, then go on with --resume", path_,
                std::strerror(reason));
  if (!unwritten_.empty() && !told_full_)
    std::fprintf(stderr, "warning: %s/metrics.jsonl: can't be written: %s; its lines wait for room\n", path_.c_str(),
                 std::strerror(reason));
  told_full_ = !unwritten_.empty();
}

std::string current_run(const std::string& path) {
  for (const char* const name : {"current", "latest"})  // a phase that only asks a model is no run
    if (const std::string run = path + "/" + name; fs::exists(run + "/config.toml"))
      return path + "/" + fs::read_symlink(run).string();
  return path;
}

Config load_run_config(const std::string& path) {
  const std::string file = path + "/config.toml";
  std::ifstream in(file);
  if (!in) throw Error("{}: not a run's folder (no config.toml in it)", path);
  std::stringstream text;
  text << in.rdbuf();
  return config_from_text(text.str(), file, {}, false);
}

}  // namespace troupe
