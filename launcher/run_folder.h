// A run's folder: lock, config.toml, metrics.jsonl, logs/, checkpoints/. One run per folder, never overwritten
// silently.
#pragma once

#include <mutex>
#include <string>

#include "actors/config.h"

namespace troupe {

class RunFolder {
 public:
  // Makes the folder (or opens it to resume) and locks it. Throws Error: a run that did a step is there already and
  // `resume` is false; another process holds the lock; can't be made.
  RunFolder(std::string path, bool resume);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;

  const std::string& path() const { return path_; }
  // The folder is this run's from here on: its configuration is written, boards of processes that are gone are removed.
  void begin(const Config& config) const;
  void append_metrics(const std::string& json_line);

 private:
  void keep_tokenizer(const std::string& name) const;

  std::string path_;
  int lock_fd_ = -1;
  std::mutex metrics_mutex_;  // a stall is told by another thread
  int metrics_fd_ = -1;
  std::string unwritten_;  // of metrics.jsonl
  bool told_full_ = false;
};

// Of a run of several phases the folder of the one that is trained now, or was last; of any other the folder itself.
std::string current_run(const std::string& path);

// The configuration a run was started with. Throws Error if `path` is no run's folder.
Config load_run_config(const std::string& path);

}  // namespace troupe
