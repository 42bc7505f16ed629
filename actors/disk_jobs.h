// DiskJobs: the jobs of a disk as sequences of file primitives, done at once, one after the other. PosixDisk does them
// on its thread, SimDisk in virtual time; what stands between a crash and a checkpoint is the same for both. The law:
// after the first problem nothing more is written until it was reported, and a folder in which anything went wrong is
// removed, never renamed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "messages/payload.h"

namespace troupe {

enum class FileAct : std::uint8_t { make_folder, write, sync, rename, exchange, remove };

// One thing asked of the file system. `to`: of rename and exchange; `size`: of write.
struct FilePrimitive {
  FileAct act = FileAct::write;
  std::string path, to;
  std::size_t size = 0;
};

// Told of every primitive: before it is done (an Error thrown here is the primitive's failure), and when it was done.
struct FileHooks {
  std::function<void(const FilePrimitive&)> before, after;
};

class DiskJobs {
 public:
  explicit DiskJobs(FileHooks hooks = {});
  ~DiskJobs();

  // As in Disk (actors/disk.h); a problem is kept, none is thrown.
  void make_folder(const std::string& path);
  void write(const std::string& path, std::uint64_t offset, const Payload& bytes);
  void write_text(const std::string& path, const std::string& text);
  void run(const std::function<void()>& work);
  void commit_folder(const std::string& from, const std::string& to);
  void remove_folder(const std::string& path);
  // The first problem since the last call; empty: none.
  std::string take_problem();

 private:
  void attempt(const std::function<void()>& work);
  void spoil(const std::string& problem);
  void primitive(const FilePrimitive& what, const std::function<void()>& work);
  void write_at(const std::string& path, std::uint64_t offset, const char* bytes, std::size_t size, int flags);
  void close();
  void sync(const std::string& path);
  void sync_and_rename(const std::string& from, const std::string& to);
  void remove_all(const std::string& path);

  class OpenFile;

  FileHooks hooks_;
  std::unique_ptr<OpenFile> open_;  // the file written last: its next piece comes soon
  bool spoiled_ = false;            // something failed since the last make_folder
  std::string problem_;             // the first since it was last taken
};

}  // namespace troupe
