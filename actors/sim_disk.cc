#include "actors/sim_disk.h"

#include <fcntl.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/error.h"
#include "kernels/base/random.h"

namespace troupe {

namespace fs = std::filesystem;

namespace {

std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  std::string bytes(static_cast<std::size_t>(std::max<std::streamoff>(file.tellg(), 0)), '\0');
  file.seekg(0).read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

// Regular files below a folder, by name.
std::vector<std::string> files_below(const std::string& folder) {
  std::vector<std::string> files;
  if (!fs::exists(folder)) return files;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  return files;
}

bool is_within(const std::string& path, const std::string& folder) { return path.starts_with(folder + "/"); }
std::string parent_of(const std::string& path) { return fs::path(path).parent_path().string(); }

}  // namespace

// What is there when the disk is mounted was synced long ago.
SimDisk::SimDisk(SimDiskOptions options)
    : options_(std::move(options)),
      work_({[this](const FilePrimitive& what) { before(what); }, [this](const FilePrimitive& what) { after(what); }}) {
  CHECK(!options_.root.empty() && options_.bytes_per_us > 0, "a disk needs a folder and a speed");
  fs::create_directories(options_.root);
  for (const std::string& path : files_below(options_.root)) synced_[path] = read_bytes(path);
}

// ---- Jobs -----------------------------------------------------------------------------------------------------------

void SimDisk::queue(std::function<void()> work, std::size_t size) {
  queued_bytes_ += size;
  queue_.push_back({std::move(work), size, -1});
}

void SimDisk::make_folder(std::string path) {
  queue([this, path = std::move(path)] { work_.make_folder(path); });
}
void SimDisk::write(std::string path, std::uint64_t offset, Payload bytes) {
  const std::size_t size = bytes.size;
  queue([this, path = std::move(path), offset, bytes = std::move(bytes)] { work_.write(path, offset, bytes); }, size);
}
void SimDisk::write_text(std::string path, std::string text) {
  const std::size_t size = text.size();
  queue([this, path = std::move(path), text = std::move(text)] { work_.write_text(path, text); }, size);
}
void SimDisk::run(std::function<void()> work) {
  queue([this, work = std::move(work)] { work_.run(work); });
}
void SimDisk::commit_folder(std::string from, std::string to) {
  queue([this, from = std::move(from), to = std::move(to)] { work_.commit_folder(from, to); });
}
void SimDisk::remove_folder(std::string path) {
  queue([this, path = std::move(path)] { work_.remove_folder(path); });
}
void SimDisk::report(std::uint32_t actor, std::uint64_t token) {
  queue([this, actor, token] { outcomes_.push_back({actor, token, work_.take_problem()}); });
}

void SimDisk::take_outcomes(std::vector<DiskOutcome>& out) {
  for (DiskOutcome& outcome : outcomes_) out.push_back(std::move(outcome));
  outcomes_.clear();
}

void SimDisk::advance(std::int64_t now_us) {
  std::int64_t free_us = now_us;  // when the job in front may have begun
  while (!queue_.empty() && !fell_) {
    Job& job = queue_.front();
    const auto carry_us = static_cast<std::int64_t>(std::ceil(static_cast<double>(job.size) / options_.bytes_per_us));
    if (job.end_us < 0) job.end_us = free_us + options_.job_us + carry_us;
    if (job.end_us > now_us) return;
    free_us = job.end_us;
    const Job done = std::move(job);
    queue_.pop_front();
    queued_bytes_ -= done.size;
    try {
      done.work();
    } catch (const Fall&) {
      fell_ = true;
    }
  }
}

std::int64_t SimDisk::next_us() const {
  if (fell_ || queue_.empty()) return std::numeric_limits<std::int64_t>::max();
  return std::max<std::int64_t>(queue_.front().end_us, 0);
}

// ---- Primitives -----------------------------------------------------------------------------------------------------

void SimDisk::before(const FilePrimitive& what) {
  if (++primitives_ == options_.crash_at_primitive) throw Fall{};
  if (what.act == FileAct::remove) keep_removed(what.path);
  if (what.act != FileAct::write) return;
  written_ += what.size;
  if (options_.written_max > 0 && written_ > options_.written_max)
    throw Error("can't write {}: the simulated disk is full", what.path);
}

void SimDisk::keep_removed(const std::string& path) {
  for (const std::string& file : files_below(path)) {
    const auto kept = synced_.find(file);
    if (kept == synced_.end()) continue;
    removed_.emplace_back(*kept);
    synced_.erase(kept);
  }
}

void SimDisk::after(const FilePrimitive& what) {
  if (what.act == FileAct::rename || what.act == FileAct::exchange) {
    renames_.push_back({what.path, what.to, what.act == FileAct::exchange});
    move_synced(renames_.back());
  }
  if (what.act != FileAct::sync) return;
  if (fs::is_regular_file(what.path)) synced_[what.path] = read_bytes(what.path);
  std::erase_if(renames_, [&](const Rename& rename) { return parent_of(rename.to) == what.path; });
  std::erase_if(removed_, [&](const auto& file) { return parent_of(parent_of(file.first)) == what.path; });
}

// What was synced keeps being so under its new name.
void SimDisk::move_synced(const Rename& rename) {
  std::map<std::string, std::string> moved;
  for (auto& [path, bytes] : synced_) {
    if (is_within(path, rename.from))
      moved[rename.to + path.substr(rename.from.size())] = std::move(bytes);
    else if (is_within(path, rename.to))
      moved[rename.from + path.substr(rename.to.size())] = std::move(bytes);
    else
      moved[path] = std::move(bytes);
  }
  synced_ = std::move(moved);
}

// ---- The fall -------------------------------------------------------------------------------------------------------

std::uint64_t SimDisk::draw(std::uint64_t bound) {
  return random_below(bound, random_key(options_.seed, "disk crash"), draws_++);
}

void SimDisk::crash() {
  fell_ = true;
  queue_.clear();
  outcomes_.clear();
  queued_bytes_ = 0;
  undo_renames();
  lose_unsynced();
  bring_back_removed();
}

// The last few of those that are not on disk yet.
void SimDisk::undo_renames() {
  for (std::uint64_t undone = draw(renames_.size() + 1); undone > 0; --undone) {
    const Rename rename = renames_.back();
    renames_.pop_back();
    const int failed = ::renameat2(AT_FDCWD, rename.to.c_str(), AT_FDCWD, rename.from.c_str(),
                                   rename.exchange ? RENAME_EXCHANGE : RENAME_NOREPLACE);
    CHECK(failed == 0, "{} could not go back to {}", rename.to, rename.from);
    move_synced({rename.to, rename.from, rename.exchange});
  }
}

void SimDisk::lose_unsynced() {
  for (const std::string& path : files_below(options_.root)) {
    const std::string bytes = read_bytes(path);
    const auto kept = synced_.find(path);
    if (kept != synced_.end() && kept->second == bytes) continue;
    switch (draw(4)) {
      case 0:  // it came through
        break;
      case 1:
        write_bytes(path, bytes.substr(0, draw(bytes.size() + 1)));
        break;
      case 2:
        write_bytes(path, std::string(bytes.size(), '\0'));
        break;
      default:
        if (kept != synced_.end())
          write_bytes(path, kept->second);
        else
          fs::remove(path);
    }
  }
}

void SimDisk::bring_back_removed() {
  for (const auto& [path, bytes] : removed_) {
    if (draw(2) == 0 || fs::exists(path)) continue;
    fs::create_directories(parent_of(path));
    write_bytes(path, bytes);
  }
}

}  // namespace troupe
