#include "actors/disk_jobs.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "kernels/base/error.h"
#include "kernels/base/mutant.h"

namespace troupe {
namespace fs = std::filesystem;

class DiskJobs::OpenFile {
 public:
  OpenFile(const std::string& path, int flags) : path_(path), file_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {
    if (file_ < 0) throw Error("can't open {}: {}", path, std::strerror(errno));
  }
  ~OpenFile() {
    if (file_ >= 0) ::close(file_);
  }
  OpenFile(const OpenFile&) = delete;

  void write(std::uint64_t offset, const char* bytes, std::size_t size) {
    while (size > 0) {
      const ssize_t count = ::pwrite(file_, bytes, size, static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) throw Error("can't write {}: {}", path_, std::strerror(errno));
      bytes += count;
      offset += static_cast<std::uint64_t>(count);
      size -= static_cast<std::size_t>(count);
    }
  }
  const std::string& path() const { return path_; }
  void sync() {
    if (::fsync(file_) != 0) throw Error("can't sync {}: {}", path_, std::strerror(errno));
  }
  void close() {
    const int file = std::exchange(file_, -1);
    if (::close(file) != 0 && errno != EINTR) throw Error("can't close {}: {}", path_, std::strerror(errno));
  }

 private:
  std::string path_;
  int file_;
};

DiskJobs::DiskJobs(FileHooks hooks) : hooks_(std::move(hooks)) {}
DiskJobs::~DiskJobs() = default;

// ---- Primitives -----------------------------------------------------------------------------------------------------

void DiskJobs::primitive(const FilePrimitive& what, const std::function<void()>& work) {
  if (hooks_.before) hooks_.before(what);
  if (what.act != FileAct::write) close();
  work();
  if (hooks_.after) hooks_.after(what);
}

void DiskJobs::write_at(const std::string& path, std::uint64_t offset, const char* bytes, std::size_t size, int flags) {
  primitive({FileAct::write, path, "", size}, [&] {
    if (!open_ || open_->path() != path || flags != 0) {
      close();
      open_ = std::make_unique<OpenFile>(path, O_WRONLY | O_CREAT | flags);
    }
    open_->write(offset, bytes, size);
  });
}

// Some file systems tell of a full disk only here.
void DiskJobs::close() {
  if (const auto file = std::exchange(open_, nullptr)) file->close();
}

void DiskJobs::sync(const std::string& path) {
  primitive({FileAct::sync, path, "", 0}, [&] { OpenFile(path, O_RDONLY).sync(); });
}

void DiskJobs::remove_all(const std::string& path) {
  primitive({FileAct::remove, path, "", 0}, [&] { fs::remove_all(path); });
}

// Every file of the folder, not only those written here: `run` may have written some.
void DiskJobs::sync_and_rename(const std::string& from, const std::string& to) {
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(from)) {
    if (!mutant(Mutant::rename_before_sync) && (entry.is_regular_file() || entry.is_directory()))
      sync(entry.path().string());
  }
  sync(from);
  const bool replaces = fs::exists(to);  // the same version again, after falling back to an older one
  primitive({replaces ? FileAct::exchange : FileAct::rename, from, to, 0}, [&] {
    const unsigned flags = replaces ? RENAME_EXCHANGE : RENAME_NOREPLACE;
    if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) != 0)
      throw Error("can't rename {} to {}: {}", from, to, std::strerror(errno));
  });
  sync(fs::absolute(to).parent_path().string());
  if (replaces) remove_all(from);
}

// ---- Jobs -----------------------------------------------------------------------------------------------------------

void DiskJobs::attempt(const std::function<void()>& work) {
  try {
    work();
  } catch (const std::exception& problem) {
    spoil(problem.what());
  }
}

void DiskJobs::spoil(const std::string& problem) {
  spoiled_ = true;
  if (problem_.empty()) problem_ = problem;
}

std::string DiskJobs::take_problem() { return std::exchange(problem_, {}); }

void DiskJobs::make_folder(const std::string& path) {
  if (!problem_.empty()) return;
  spoiled_ = false;
  attempt([&] {
    remove_all(path);
    primitive({FileAct::make_folder, path, "", 0}, [&] { fs::create_directories(path); });
  });
}

void DiskJobs::write(const std::string& path, std::uint64_t offset, const Payload& bytes) {
  if (!problem_.empty()) return;
  attempt([&] { write_at(path, offset, reinterpret_cast<const char*>(bytes.data.get()), bytes.size, 0); });
}

void DiskJobs::write_text(const std::string& path, const std::string& text) {
  if (!problem_.empty()) return;
  attempt([&] { write_at(path, 0, text.data(), text.size(), O_TRUNC); });
}

void DiskJobs::run(const std::function<void()>& work) {
  if (!problem_.empty()) return;
  attempt([&] {
    close();
    work();
  });
}

void DiskJobs::commit_folder(const std::string& from, const std::string& to) {
  if (spoiled_) {
    spoil(fmt::format("{} was not kept: writing it failed", to));
  } else {
    attempt([&] { sync_and_rename(from, to); });
    if (!spoiled_) return;
  }
  open_.reset();
  std::error_code ignored;  // the first problem is the one to tell
  fs::remove_all(from, ignored);
}

// After a problem only what was never complete may go: an older checkpoint is then worth keeping.
void DiskJobs::remove_folder(const std::string& path) {
  if (problem_.empty() || path.ends_with(".partial")) attempt([&] { remove_all(path); });
}

}  // namespace troupe
