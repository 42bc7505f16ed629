// SimDisk: a disk in virtual time, on real files below one folder, so that every production reader reads them. A job
// takes its time, may find the disk full, and the machine may fall at any primitive. The law: after crash() the folder
// holds what was synced, and of everything else what a draw from the seed left: whole, torn, zeroed or gone; a rename
// whose parent folder was not synced may not have happened, a removal neither.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "actors/disk.h"
#include "actors/disk_jobs.h"

namespace troupe {

struct SimDiskOptions {
  std::uint64_t seed = 0;
  std::string root;  // the folder that is this disk
  std::int64_t job_us = 50;
  double bytes_per_us = 100;
  std::size_t written_max = 0;           // bytes that may be written in all; 0: no limit
  std::uint64_t crash_at_primitive = 0;  // the machine falls before the n-th, counted from 1; 0: never
};

class SimDisk final : public Disk {
 public:
  explicit SimDisk(SimDiskOptions options);

  void make_folder(std::string path) override;
  void write(std::string path, std::uint64_t offset, Payload bytes) override;
  void write_text(std::string path, std::string text) override;
  void run(std::function<void()> work) override;
  void commit_folder(std::string from, std::string to) override;
  void remove_folder(std::string path) override;
  void report(std::uint32_t actor, std::uint64_t token) override;
  void take_outcomes(std::vector<DiskOutcome>& out) override;
  int outcome_fd() const override { return -1; }
  std::size_t queued_bytes() const override { return queued_bytes_; }

  // Does what is due by now, in order; the first job that waits begins.
  void advance(std::int64_t now_us);
  // When the job under way is done; the largest number if there is none.
  std::int64_t next_us() const;
  std::size_t jobs() const override { return queue_.size(); }
  std::uint64_t primitives() const { return primitives_; }
  // It fell at the primitive it was told to.
  bool fell() const { return fell_; }
  // The machine falls now: jobs that wait are gone, and what was not synced is left to the draw. Once.
  void crash();

 private:
  struct Job {
    std::function<void()> work;
    std::size_t size = 0;
    std::int64_t end_us = -1;  // -1: not begun
  };
  struct Fall {};  // leaves a job at the primitive where the machine falls
  struct Rename {
    std::string from, to;
    bool exchange = false;
  };

  void queue(std::function<void()> work, std::size_t size = 0);
  void before(const FilePrimitive& what);
  void after(const FilePrimitive& what);
  void keep_removed(const std::string& path);
  void move_synced(const Rename& rename);
  void undo_renames();
  void lose_unsynced();
  void bring_back_removed();
  std::uint64_t draw(std::uint64_t bound);

  SimDiskOptions options_;
  DiskJobs work_;
  std::deque<Job> queue_;
  std::vector<DiskOutcome> outcomes_;
  std::size_t queued_bytes_ = 0, written_ = 0;
  std::int64_t now_us_ = 0;
  std::uint64_t primitives_ = 0, draws_ = 0;
  bool fell_ = false;

  std::map<std::string, std::string> synced_;                 // path -> bytes when it was last synced
  std::vector<Rename> renames_;                               // since their parent's last sync
  std::vector<std::pair<std::string, std::string>> removed_;  // path and bytes, likewise
};

}  // namespace troupe
