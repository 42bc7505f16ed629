// Disk: what the checkpointer writes to. Asynchronous: calls queue work for the disk thread and name a token; the
// outcome comes back as a DiskOutcome. Paths are within the run's folder or absolute.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "messages/payload.h"

namespace troupe {

struct DiskOutcome {
  std::uint32_t actor = 0;
  std::uint64_t token = 0;
  std::string problem;
};  // problem empty: done

class Disk {
 public:
  virtual ~Disk() = default;
  // Makes the folder (and parents), empty: anything in it is removed first.
  virtual void make_folder(std::string path) = 0;
  virtual void write(std::string path, std::uint64_t offset, Payload bytes) = 0;
  virtual void write_text(std::string path, std::string text) = 0;
  // Runs `work` on the disk thread (manifest: reads files back); an exception's text is the problem.
  virtual void run(std::function<void()> work) = 0;
  // Syncs every file written since the folder was made, then the folder; renames it to `to`; syncs the parent.
  virtual void commit_folder(std::string from, std::string to) = 0;
  virtual void remove_folder(std::string path) = 0;
  // After everything queued so far: report to the actor; the first problem since the last report, if any.
  virtual void report(std::uint32_t actor, std::uint64_t token) = 0;

  virtual void take_outcomes(std::vector<DiskOutcome>& out) = 0;
  virtual int outcome_fd() const = 0;
  virtual std::size_t queued_bytes() const = 0;
  // Asked for and not yet done.
  virtual std::size_t jobs() const = 0;
};

std::unique_ptr<Disk> make_posix_disk();

}  // namespace troupe
