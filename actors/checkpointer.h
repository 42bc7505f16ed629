// Checkpointer: writes a snapshot's parts as they come, while training goes on. A folder is written aside, synced and
// renamed: an interrupted write never hurts the last good one, and a full disk costs a warning.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "actors/checkpoint/safetensors.h"
#include "actors/checkpoint/state_file.h"
#include "actors/config.h"
#include "actors/data/corpus.h"
#include "actors/node.h"
#include "actors/owner.h"
#include "actors/wait.h"

namespace troupe {

class Checkpointer {
 public:
  Checkpointer(const Context& context, const Config& config, std::string run_folder,
               std::vector<Provenance> provenance);

  void on(const Restore& restore, const Address& from);
  void on(const SnapshotBegin& begin, const Address& from);
  void on(const SnapshotPart& part, const Address& from);
  void on(const DiskDone& done, const Address& from);
  void on(const Fetch& fetch, const Address& from);  // of a checkpoint, from who can't read it
  void on(const Report& best, const Address& from);  // kind "best": the version that evaluates best so far
  void on(const Stop&, const Address&) {}
  void waits(Waits& out) const;
  std::uint32_t attempt() const { return attempt_; }
  std::int64_t version() const { return version_; }

 private:
  void plan_files();
  void finish();
  void prune();
  std::string folder(std::int64_t version) const;

  // A checkpoint as one holder's state.
  struct Lent {
    Lent(const Config& config, const Address& holder, const Restore& restore);
    std::vector<Parameter> parameters;
    std::vector<StatePart> parts;
    StateFile file;
  };
  const Lent& lent_to(const Address& holder);

  Context context_;
  const Config& config_;
  std::string run_folder_;
  Restore restore_;
  std::map<Address, Lent> lent_;  // of this attempt
  std::vector<Provenance> provenance_;
  SafetensorsPlan model_, optimizer_, reference_;
  std::int64_t expected_ = 0, received_ = 0;  // elements
  std::map<Address, std::int64_t> missing_;   // by owner
  std::uint32_t attempt_ = 0;
  std::int64_t version_ = -1, best_ = -1;  // version_ -1: idle
  std::string state_, problem_;
  std::string partial_, model_path_, optimizer_path_, reference_path_;  // of the save under way
  std::map<std::uint64_t, Address> owed_;                               // credits to return when the disk has the part
  std::uint64_t next_token_ = 1, finish_token_ = 0;
};

}  // namespace troupe
