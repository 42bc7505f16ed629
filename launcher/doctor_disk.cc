// The file system that a run's folder would be on: room, and how fast bytes get through to the disk. The file that is
// written has no name by then, so nothing can be left behind.
#include <fcntl.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <fmt/format.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <vector>

#include "launcher/doctor_facts.h"

namespace troupe {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kBlock = std::size_t{4} << 20;
constexpr int kBlocksMax = 16;
constexpr double kSecondsMax = 0.3;

// From linux/magic.h, and of file systems that it doesn't know.
std::string filesystem_of(const std::string& folder) {
  struct statfs status {};
  if (::statfs(folder.c_str(), &status) != 0) return "unknown";
  static const std::map<std::uint32_t, const char*> names = {
      {0xEF53, "ext4"},        {0x58465342, "xfs"},     {0x9123683E, "btrfs"},  {0x01021994, "tmpfs"},
      {0x6969, "nfs"},         {0x794C7630, "overlay"}, {0x2FC12FC1, "zfs"},    {0x65735546, "fuse"},
      {0xFF534D42, "cifs"},    {0xFE534D42, "smb2"},    {0x0BD00BD0, "lustre"}, {0x47504653, "gpfs"},
      {0x00C36400, "ceph"},    {0x01021997, "9p"},      {0xF2F52010, "f2fs"},   {0x19830326, "beegfs"},
      {0xCA451A4E, "bcachefs"}};
  const auto found = names.find(static_cast<std::uint32_t>(status.f_type));
  return found == names.end() ? fmt::format("file system {:#x}", status.f_type) : found->second;
}

void measure(DiskFacts& facts, int file) {
  std::vector<char> block(kBlock);
  std::uint32_t state = 1;  // bytes that no file system can make fewer
  for (char& byte : block) byte = static_cast<char>((state = state * 1664525U + 1013904223U) >> 24);
  const auto begin = Clock::now();
  double seconds = 0;
  int blocks = 0;
  while (blocks < kBlocksMax && seconds < kSecondsMax) {
    if (::write(file, block.data(), block.size()) != static_cast<ssize_t>(block.size()) || ::fdatasync(file) != 0) {
      facts.problem = std::strerror(errno);
      return;
    }
    ++blocks;
    seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  }
  facts.bytes_per_second = static_cast<double>(kBlock) * blocks / seconds;
  facts.sync_ms = seconds / blocks * 1000;
}

}  // namespace

DiskFacts look_at_disk() {
  DiskFacts facts;
  std::error_code failed;
  facts.folder = std::filesystem::current_path(failed).string();
  if (failed) {
    facts.problem = "the working folder is gone";
    return facts;
  }
  facts.filesystem = filesystem_of(facts.folder);
  struct statvfs status {};
  if (::statvfs(facts.folder.c_str(), &status) == 0) facts.free = std::uint64_t{status.f_bavail} * status.f_frsize;
  std::string path = facts.folder + "/.troupe-doctor-XXXXXX";
  const int file = ::mkostemp(path.data(), O_CLOEXEC);
  if (file < 0) {
    facts.problem = std::strerror(errno);
    return facts;
  }
  ::unlink(path.c_str());
  // A disk that is nearly full is told by its size, not filled up.
  if (facts.free > 4 * kBlock * kBlocksMax) measure(facts, file);
  ::close(file);
  return facts;
}

}  // namespace troupe
